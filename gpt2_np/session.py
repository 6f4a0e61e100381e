"""A model to call and sessions to decode with: the one place where an implementation is chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import hub, model, ops, weights
from .activations import ActivationCache
from .cache import KVCache
from .config import Config
from .edits import AnyEdit, edits
from .params import Params, check_shapes, map_arrays
from .taps import Capture, Recording, Tap, both, no_tap, select

if TYPE_CHECKING:
    from .gradients import GradientRun, Metric

Array = np.ndarray
AnyModel = TypeVar("AnyModel", bound="Model")

BACKENDS = ("numba", "numpy")
DTYPES = ("float32", "float64", "bfloat16", "int8", "int4")
INT64 = np.dtype(np.int64)


class Model:
    """Frozen parameters, their configuration, and how to run them.

    `backend` is "numba" (compiled kernels, the default) or "numpy" (the readable path: `ops`, in the pieces of
    `threaded`). What observes a run takes the readable path either way.
    """

    def __init__(self, params: Params, config: Config, *, folder: Path | None = None, backend: str = "numba") -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        self.params, self.config, self.folder, self.backend = params, config, folder, backend
        self.tap: Tap = no_tap

    @classmethod
    def from_pretrained(
        cls: type[AnyModel], name: str | Path | None = None, *, dtype: str = "float32", backend: str = "numba"
    ) -> AnyModel:
        """Load a model by name: the bundled one (None or "tales"), an official size, a hub id or a local folder.

        `dtype` is what the weights are kept in: "float32", "float64" (the oracle), or the reduced "bfloat16",
        "int8" and "int4". ``ValueError`` or ``OSError``, in one line, when the name, the files or the dtype are wrong.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        folder = hub.locate(name)
        config = Config.from_file(folder / "config.json")
        params = weights.load(folder, config, to_convert=dtype not in ("float32", "float64"))
        if dtype == "float64":
            params = map_arrays(params, lambda array: array.astype(np.float64))
        elif dtype != "float32":
            from . import quantize

            params = quantize.quantize(params, dtype)
        return cls(params, config, folder=folder, backend=backend)

    @property
    def dtype(self) -> np.dtype:
        """What activations and logits are computed in: float32, or float64 for the oracle."""
        return self.params.ln_f.weight.dtype

    def __call__(self, ids: Any, *, token_type_ids: Any = None) -> Array:
        """The logits after every position: (T,) ids → (T, V), (B, T) → (B, T, V).

        ``ValueError`` for ids outside the vocabulary, or more of them than the model has positions.
        """
        batch = self.check_ids(ids)
        types = None if token_type_ids is None else self.check_ids(token_type_ids)
        if types is not None and types.shape != batch.shape:
            raise ValueError(f"token_type_ids must have the shape of ids, {batch.shape}, got {types.shape}")
        logits = self.forward(batch, token_type_ids=types)
        return logits if np.ndim(ids) > 1 else logits[0]

    def forward(
        self,
        ids: Array,
        *,
        cache: KVCache | None = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
    ) -> Array:
        """`model.forward` in the implementation that suits the call; see there."""
        tap = both(self.tap, tap)
        if tap is no_tap and cache is not None and self._step is not None and ids.size <= self._step.FEW:
            return self._step.forward(
                self._laid_out, self.config, ids, cache=cache, token_type_ids=token_type_ids, last_only=last_only
            )
        operations, params = self._means(tap)
        return model.forward(
            params,
            self.config,
            ids,
            cache=cache,
            ops=operations,
            tap=tap,
            token_type_ids=token_type_ids,
            last_only=last_only,
        )

    @cached_property
    def _step(self) -> Any:
        """`step`, or None where `model.forward` must do all."""
        if self.backend != "numba":
            return None
        from . import step

        return step if step.suits(self._laid_out, self.config) else None

    @cached_property
    def _laid_out(self) -> Params:
        """The parameters as the kernels read them; copied when first needed, and never where all runs are observed."""
        from . import layout

        return layout.outputs_down(self.params)

    def _means(self, tap: Tap) -> tuple[Any, Params]:
        """The operations that a run takes, and the parameters as they read them."""
        if tap is not no_tap or self.backend == "numpy":
            from . import threaded

            return threaded, self.params
        from . import kernels

        return kernels, self._laid_out

    def start(self, *, capacity: int | None = None, tap: Tap = no_tap) -> Session:
        """A `Session`: rows of text that grow by feeding ids, up to `capacity` positions (all that the model has)."""
        return Session(self, self.config.n_positions if capacity is None else capacity, tap)

    def run_with_cache(self, ids: Any, names: str | Iterable[str] | None = None) -> tuple[Array, ActivationCache]:
        """The logits, and the named activations of the run (all but the largest, where `names` is None).

        Names and patterns are TransformerLens's, ``hook_`` being optional; an unknown one is a ``ValueError``.
        """
        return self.run_with_edits(ids, {}, names)

    def run_with_edits(
        self, ids: Any, changes: Mapping[str, AnyEdit], names: str | Iterable[str] | None = ()
    ) -> tuple[Array, ActivationCache]:
        """A run in which each named activation is replaced: by a function's result, an array, or in a `Part` only.

        Returns the logits and the activations in `names`, as they were after the edits. ``ValueError``, before
        anything runs, for an unknown name or an array of a wrong shape.
        """
        batch = self.check_ids(ids)
        capture = Capture(select(names, self.config))
        changing = edits(changes, self.config, batch.shape) if changes else no_tap
        logits = self.forward(batch, tap=both(changing, capture if capture.names else no_tap))
        return (logits if np.ndim(ids) > 1 else logits[0]), ActivationCache(capture.values, self.params, self.config)

    def run_with_gradients(
        self,
        ids: Any,
        metric: Metric,
        names: str | Iterable[str] | None = None,
        parameters: bool = False,
        *,
        gradient_edits: Mapping[str, AnyEdit] | Tap | None = None,
        keep: str = "all",
        token_type_ids: Any = None,
    ) -> GradientRun:
        """A run forwards and backwards: how a metric changes with every named activation, and with every parameter.

        `ids` are (T,), (B, T) or a list of rows of unequal lengths. `metric` gives each row a number and says how it
        changes with the logits: one of `gpt2_np.gradients`, or an object of your own with ``value(logits, ids)``, (B,),
        and ``gradient(logits, ids)``, (B, T, V). The result (`gradients.GradientRun`) holds ``value``, ``logits``,
        ``cache[name]`` and ``grads[name]``, and with `parameters` the parameters' gradients as ``params``. Names are
        those of `run_with_cache`. ``grads["blocks.0.ln1.in"]`` is the norm's share, ``grads["blocks.0.resid_pre"]`` the
        whole, what goes past the block included.

        `gradient_edits` change gradients on their way back as `run_with_edits` changes activations: a function of the
        gradient, an array or a `Part`; or they are a tap of your own (`taps.Tap`), which sees them all. Edits of the
        model itself (`with_edits`) act on gradients too: an array stops them, an `Edit` passes them by its derivative,
        a bare function is refused. `keep` says what memory may be spent on, without changing a bit of the result:
        "all", "layers" or "inputs" (`gradients.kept`). Reduced-precision weights stand for their numbers, and have no
        gradients themselves.

        ``ValueError``, before anything runs, for names, ids, edits or options that can't be.
        """
        from .gradients.run import run_with_gradients

        return run_with_gradients(
            self,
            ids,
            metric,
            names,
            parameters,
            gradient_edits=gradient_edits,
            keep=keep,
            token_type_ids=token_type_ids,
        )

    def with_edits(self: AnyModel, changes: Mapping[str, AnyEdit]) -> AnyModel:
        """The same model with these edits in whatever it does: runs, scores, generates. This one stays as it is."""
        edited = copy.copy(self)
        edited.tap = both(self.tap, edits(changes, self.config))
        return edited

    def with_params(self: AnyModel, params: Params) -> AnyModel:
        """The same model with other parameters of the same shapes (`internals.processing` makes some).

        ``ValueError`` names the first tensor of another shape. ``lm_head`` may be untied.
        """
        check_shapes(params, self.config)
        altered = type(self)(params, self.config, folder=self.folder, backend=self.backend)
        altered.tap = self.tap
        return altered

    def unembed(self, x: Array) -> Array:
        """The logits of residual streams as they are, without the final norm: (…, D) → (…, V)."""
        return ops.unembed(x, self.params.lm_head)

    def check_ids(self, ids: Any) -> Array:
        """Ids as a (B, T) int64 array, known to lie in the vocabulary and to fit the context."""
        array = np.asarray(ids)
        if array.ndim not in (1, 2) or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"ids must be whole numbers in one or two dimensions, got {array.dtype} {array.shape}")
        check_vocabulary(array, self.config)
        if array.shape[-1] > self.config.n_positions:
            raise ValueError(f"the model has {self.config.n_positions} positions, got {array.shape[-1]} ids")
        return np.atleast_2d(array).astype(np.int64, copy=False)


def check_vocabulary(ids: Array, config: Config) -> None:
    """``ValueError`` names the first id that is not in the vocabulary."""
    for one in ids.ravel().tolist():  # for the single id of a step much faster than NumPy
        if not 0 <= one < config.vocab_size:
            raise ValueError(f"ids must be between 0 and {config.vocab_size - 1}, got {one}")


class Session:
    """Rows of text in progress: all that `decoders` need of a model (each of their ``…Stepper`` protocols).

    The first `feed` brings the prompts, one a row, of any lengths; every later one continues the rows.
    """

    def __init__(self, model: Model, capacity: int, tap: Tap = no_tap) -> None:
        self.model, self.capacity, self.tap = model, capacity, tap
        self.cache: KVCache | None = None

    def feed(self, ids: Sequence[Sequence[int]] | Array) -> Array:
        """Continue each row by its new ids; the logits after each row's last: (rows, V)."""
        logits = self._advance(ids, last_only=True)
        return logits[0][:, -1] if len(logits) == 1 else np.concatenate([part[:, -1] for part in logits])

    def feed_all(self, ids: Sequence[Sequence[int]] | Array) -> list[Array]:
        """Continue each row by its new ids; the logits after every one of them: for each row (its new ids, V)."""
        return [row for logits in self._advance(ids, last_only=False) for row in logits]

    def feed_hidden(self, ids: Sequence[Sequence[int]] | Array) -> tuple[Array, list[Array]]:
        """`feed`'s logits, and the final norm's output after every new id: for each row (its new ids, D)."""
        logits, (hidden,) = self._observe(ids, ["ln_final.out"], last_only=False)
        return logits, hidden

    def feed_layers(self, ids: Sequence[Sequence[int]] | Array, layers: Sequence[int]) -> tuple[Array, Array]:
        """`feed`'s logits, and those of the residual stream as it enters each of `layers`: (layers, rows, V).

        The stream is unembedded as it is, without the final norm.
        """
        logits, streams = self._observe(ids, [f"blocks.{layer}.resid_pre" for layer in layers], last_only=True)
        return logits, self.model.unembed(np.stack([[row[-1] for row in stream] for stream in streams]))

    @property
    def n_layer(self) -> int:
        """How many layers `feed_layers` can look at."""
        return self.model.config.n_layer

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix, so that early layers mostly repeat the last id."""
        return self.model.config.tie_word_embeddings

    def _observe(
        self, ids: Sequence[Sequence[int]] | Array, names: Sequence[str], last_only: bool
    ) -> tuple[Array, list[list[Array]]]:
        """(rows, V) logits after each row's last id, and for each name each row's (its new ids, D) activations."""
        seen = Recording(names, self.model.config)
        logits = self._advance(ids, last_only, seen)
        return (
            np.concatenate([part[:, -1] for part in logits]),
            [[row for part in seen.passes[name] for row in part] for name in names],
        )

    def _advance(self, ids: Sequence[Sequence[int]] | Array, last_only: bool, watch: Tap = no_tap) -> list[Array]:
        tap = both(self.tap, watch)
        return [self.model.forward(part, cache=cache, tap=tap, last_only=last_only) for part, cache in self._parts(ids)]

    def _parts(self, ids: Sequence[Sequence[int]] | Array) -> list[tuple[Array, KVCache]]:
        """The ids as int64 arrays, and the rows of the cache they go to: all in one, or, of unequal lengths, each.

        ``ValueError``, before any of them is run, for ids that are not in the vocabulary or find no room.
        """
        if self.cache is None:
            self.cache = KVCache(self.model.config, len(ids), self.capacity, self.model.dtype)
        if isinstance(ids, np.ndarray) and ids.dtype is INT64:
            parts = [(ids, self.cache)]
        else:
            rows = [np.asarray(row, np.int64) for row in ids]
            if len({row.shape for row in rows}) == 1:
                parts = [(np.array(rows), self.cache)]
            else:
                parts = [(row[None], self.cache.row(number)) for number, row in enumerate(rows)]
        wrong = len(ids) != self.cache.rows
        for part, _ in parts:
            wrong = wrong or part.ndim != 2 or not part.size
        if wrong:
            counts = [np.size(row) for row in ids]
            raise ValueError(f"each of the {self.cache.rows} rows must get at least one new id, got {counts}")
        for part, _ in parts:
            check_vocabulary(part, self.model.config)
        for part, cache in parts:
            cache.check_room(part.shape[1])
        return parts

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """New row i continues old row ``rows[i]``."""
        assert self.cache is not None, "nothing was fed yet"
        self.cache.reorder(rows)

    def rewind(self, counts: Sequence[int] | Array | int) -> None:
        """Forget each row's last ``counts[row]`` ids."""
        assert self.cache is not None, "nothing was fed yet"
        self.cache.rewind(counts)

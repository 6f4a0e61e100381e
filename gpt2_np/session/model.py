"""A model to call and sessions to decode with: the one place where an implementation is chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..engine import available
from ..model import forward as model
from ..model import ops, overflow
from ..model.activations import ActivationCache
from ..model.cache import KVCache
from ..model.config import Config
from ..model.edits import AnyEdit, edits
from ..model.ids import check_vocabulary
from ..model.params import Params, check_shapes, map_arrays
from ..model.taps import Capture, Tap, both, no_tap, select
from ..weights import hub
from ..weights import load as weights
from .rows import Session

if TYPE_CHECKING:
    from ..gradients import GradientRun, Metric

Array = np.ndarray
AnyModel = TypeVar("AnyModel", bound="Model")

BACKENDS = available.BACKENDS
DTYPES = ("float32", "float64", "bfloat16", "int8", "int4")


class Model:
    """Frozen parameters, their configuration, and how to run them.

    `backend` is "numba" (compiled kernels, the default where Numba is installed) or "numpy" (the readable path: `ops`,
    in the pieces of `threaded`). What observes a run takes the readable path either way.
    """

    def __init__(
        self, params: Params, config: Config, *, folder: Path | None = None, backend: str | None = None
    ) -> None:
        self.params, self.config, self.folder = params, config, folder
        self.backend: str = available.chosen(backend)
        self.tap: Tap = no_tap
        self.origin: Origin | None = None

    @classmethod
    def from_pretrained(
        cls: type[AnyModel], name: str | Path | None = None, *, dtype: str = "float32", backend: str | None = None
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
            from ..weights import quantize

            params = quantize.quantize(params, dtype)
        loaded = cls(params, config, folder=folder, backend=backend)
        named = name if name is None or folder != Path(name).expanduser() else folder.absolute()
        loaded.origin = Origin(named, dtype, params)
        return loaded

    def __reduce__(self) -> Any:
        """A model is pickled by its name or folder, dtype and backend, and loaded again by whoever unpickles it.

        ``TypeError`` says why one can't be.
        """
        why = None
        if self.origin is None or self.params is not self.origin.params:
            why = "its parameters are not those of a name or folder that from_pretrained loaded"
        elif self.tap is not no_tap:
            why = "it has edits"
        if self.origin is None or why is not None:
            raise TypeError(f"this model can't be pickled: {why}; make it in the process that uses it")
        return _load_again, (type(self), self.origin.name, self.origin.dtype, self.backend)

    def __copy__(self: AnyModel) -> AnyModel:
        """The same model as another object; parameters are frozen, so nothing needs to be copied."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self: AnyModel, memo: Any) -> AnyModel:
        return copy.copy(self)

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
        """`model.forward` in the implementation that suits the call; see there. ``ValueError`` for ids outside the
        vocabulary.
        """
        check_vocabulary(ids, self.config)
        tap = both(self.tap, tap)
        if tap is no_tap and cache is not None and self._step is not None and ids.size <= self._step.FEW:
            return self._step.forward(
                self._laid_out, self.config, ids, cache=cache, token_type_ids=token_type_ids, last_only=last_only
            )
        operations, params = self._means(tap)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told by `check_logits`
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

    def check_logits(
        self, logits: Array, ids: Array, *, cache: KVCache | None = None, tap: Tap = no_tap, again: bool = True
    ) -> None:
        """``ValueError`` where logits are not finite: it names the layer whose activations overflow.

        Only then is the forward pass of `ids` run `again`, observed; a `cache` that holds them is left as it was.
        """
        if overflow.sound(logits, both(self.tap, tap)):
            return
        watch = overflow.Watch()
        if again:
            if cache is not None:
                cache.rewind(ids.shape[1])
            self.forward(ids, cache=cache, tap=both(tap, watch))
        raise ValueError(overflow.message(watch.first, self.dtype))

    @cached_property
    def _compiled(self) -> bool:
        """Whether the kernels are used; Numba is loaded here."""
        return self.backend == "numba" and available.loads()

    @cached_property
    def _step(self) -> Any:
        """`step`, or None where `model.forward` must do all."""
        if not self._compiled:
            return None
        from ..engine import decode_step as step

        return step if step.suits(self._laid_out, self.config) else None

    @cached_property
    def _laid_out(self) -> Params:
        """The parameters as the kernels read them; copied when first needed, and never where all runs are observed."""
        from ..engine import layout

        return layout.outputs_down(self.params)

    def _means(self, tap: Tap) -> tuple[Any, Params]:
        """The operations that a run takes, and the parameters as they read them."""
        if tap is not no_tap or not self._compiled:
            from ..engine import threaded

            return threaded, self.params
        from ..engine import kernels

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
        anything runs, for an unknown name or an array of a wrong shape; afterwards, where activations overflow. (A
        plain call gives what was computed, whatever it is.)
        """
        batch = self.check_ids(ids)
        capture = Capture(select(names, self.config))
        changing = edits(changes, self.config, batch.shape) if changes else no_tap
        logits = self.forward(batch, tap=both(changing, capture if capture.names else no_tap))
        self.check_logits(logits, batch, tap=changing)
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

        ``ValueError``, before anything runs, for names, ids, edits or options that can't be; and for activations that
        overflow.
        """
        from ..gradients.run import run_with_gradients

        return run_with_gradients(
            self,
            ids,
            metric,
            names,
            parameters,
            gradient_edits=gradient_edits,
            keep=keep,
            token_type_ids=token_type_ids,
            check=self.check_logits,
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


class Origin(NamedTuple):
    """Where a model's parameters came from: what `Model.from_pretrained` was given, a folder's path made absolute."""

    name: str | Path | None
    dtype: str
    params: Params


def _load_again(kind: type[AnyModel], name: str | Path | None, dtype: str, backend: str) -> AnyModel:
    return kind.from_pretrained(name, dtype=dtype, backend=backend)

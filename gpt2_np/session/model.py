"""`Model`: frozen parameters, their configuration, and every kind of run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..display import Texts
from ..model import overflow
from ..model.activations import ActivationCache
from ..model.arrays import Array
from ..model.choices import BACKENDS, DTYPES
from ..model.config import Config
from ..model.edits import AnyEdit, edits
from ..model.ids import check_ids, check_vocabulary
from ..model.params import Params, check_shapes, map_arrays
from ..model.taps import Capture, Names, Tap, both, no_tap, select
from ..system.reuse import retaining
from ..weights import hub
from ..weights.load import load
from . import about
from .implementation import AnyCache, Implementation, NumPy
from .rows import Session

if TYPE_CHECKING:
    from ..engine.decode_step import Prepared
    from ..gradients import GradientRun, Metric

AnyModel = TypeVar("AnyModel", bound="Model")


class Model:
    """Frozen parameters, their configuration, and how to run them.

    `backend` is "numba" (compiled kernels, the default where Numba is installed) or "numpy" (the readable path: `ops`,
    in the pieces of `threaded`). A run with taps takes the readable path either way. An `implementation` that is passed
    computes the numbers instead: `torch_reference` has one.
    """

    def __init__(
        self,
        params: Params,
        config: Config,
        *,
        folder: Path | None = None,
        backend: str | None = None,
        implementation: Implementation | None = None,
    ) -> None:
        self.params, self.config, self.folder = params, config, folder
        self.implementation = NumPy(params, config, backend) if implementation is None else implementation
        self.tap: Tap = no_tap
        self.origin: Origin | None = None

    @classmethod
    def from_pretrained(
        cls: type[AnyModel], name: str | Path | None = None, *, dtype: str = "float32", backend: str | None = None
    ) -> AnyModel:
        """Load a model by name: the bundled one (None or "tales"), an official size, a hub id or a local folder.

        `dtype` is what the weights are kept in: "float32", "float64" (the oracle), or the reduced "bfloat16",
        "int8" and "int4". ``ValueError`` or ``OSError``, in one line, when the name, the files or the dtype are wrong.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> model.config.n_layer, model.dtype
            (8, dtype('float32'))
            >>> GPT2.from_pretrained("tales", dtype="int8").origin.dtype
            'int8'
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        folder = hub.locate(name)
        config = Config.from_file(folder / "config.json")
        params = load(folder, config, to_convert=dtype not in ("float32", "float64"))
        if dtype == "float64":
            params = map_arrays(params, lambda array: array.astype(np.float64))
        elif dtype != "float32":
            from ..weights.quantize import quantize

            params = quantize(params, dtype)
        loaded = cls(params, config, folder=folder, backend=backend)
        named = name if name is None or folder != Path(name).expanduser() else folder.absolute()
        loaded.origin = Origin(named, dtype, params)
        return loaded

    def __repr__(self) -> str:
        return about.line(self)

    def _repr_html_(self) -> str:
        return about.card(self)

    def __reduce__(self) -> Any:
        """Pickle a model as its name or folder, dtype and backend; unpickling loads it again.

        ``TypeError`` says why a model can't be pickled.
        """
        why = None
        if self.origin is None or self.params is not self.origin.params:
            why = "its parameters are not those of a name or folder that from_pretrained loaded"
        elif self.tap is not no_tap:
            why = "it has edits"
        if self.origin is None or why is not None:
            raise TypeError(f"this model can't be pickled: {why}; make it in the process that uses it")
        return _load_again, (type(self), self.origin.name, self.origin.dtype, self.backend)

    @property
    def backend(self) -> str:
        """The name of the implementation: "numba", "numpy", or "torch" for the reference."""
        return self.implementation.backend

    @property
    def batch_invariant(self) -> bool:
        """Whether a position's bits depend neither on the rest of the batch nor on how its text is cut into passes."""
        return self.tap is no_tap and self.implementation.batch_invariant

    def __copy__(self: AnyModel) -> AnyModel:
        """Return another object for the same model; parameters are frozen, so nothing is copied."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self: AnyModel, memo: Any) -> AnyModel:
        return copy.copy(self)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of activations and logits: float32, or float64 for the oracle."""
        return self.implementation.dtype

    @retaining()
    def __call__(self, ids: Any, *, token_type_ids: Any = None, prepend_bos: bool = False) -> Array:
        """Return the logits after every position: (T,) ids → (T, V), (B, T) → (B, T, V).

        Where there is a tokenizer, `ids` may be texts (`to_ids`). ``ValueError`` for ids outside the vocabulary, or
        more of them than the model has positions.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> model([1, 2, 3]).shape
            (3, 4096)
            >>> model([[1, 2, 3], [4, 5, 6]]).shape
            (2, 3, 4096)
        """
        ids = self.to_ids(ids, prepend_bos=prepend_bos)
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
        cache: AnyCache = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
        prepared: Prepared | None = None,
    ) -> Array:
        """Run `model.forward.forward` by this model's implementation. ``ValueError`` for ids outside the vocabulary.

        `cache` comes from `new_cache`, and `prepared` from `prepare`.
        """
        check_vocabulary(ids, self.config)
        return self.implementation.forward(
            ids,
            cache=cache,
            tap=both(self.tap, tap),
            token_type_ids=token_type_ids,
            last_only=last_only,
            prepared=prepared,
        )

    def new_cache(self, rows: int, capacity: int) -> AnyCache:
        """Return an empty cache, such as `KVCache`, for a number of rows, with room for a number of positions."""
        return self.implementation.new_cache(rows, capacity)

    def prepare(self, cache: AnyCache, shape: tuple[int, int], before: Prepared | None) -> Prepared | None:
        """Return what `forward` must prepare only when a cache or the ids' shape changes; None if there is nothing."""
        return self.implementation.prepare(cache, shape, before) if self.tap is no_tap else None

    def check_logits(self, logits: Array, ids: Array, *, cache: AnyCache = None, tap: Tap = no_tap) -> None:
        """Raise ``ValueError`` if logits are not finite; it names the layer whose activations overflow.

        Only then is the forward pass of `ids` repeated, with a tap; a `cache` that holds them is left unchanged.
        """
        if overflow.sound(logits, both(self.tap, tap)):
            return
        watch = overflow.Watch()
        if self.implementation.observable:
            if cache is not None:
                cache.rewind(ids.shape[1])
            self.forward(ids, cache=cache, tap=both(tap, watch))
        raise ValueError(overflow.message(watch.first, self.dtype))

    def start(self, *, capacity: int | None = None, tap: Tap = no_tap) -> Session:
        """Start a `Session` of up to `capacity` positions per row (default: all that the model has).

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> session = model.start(capacity=20)
            >>> session.feed([model.tokenizer.encode("The king")]).shape
            (1, 4096)
            >>> session.feed([[5]]).shape
            (1, 4096)
        """
        return Session(self, self.config.n_positions if capacity is None else capacity, tap)

    def run_with_cache(
        self, ids: Any, names: Names = None, *, prepend_bos: bool = False
    ) -> tuple[Array, ActivationCache]:
        """The logits, and the named activations of the run (all but the largest, where `names` is None).

        Names and patterns are TransformerLens's, ``hook_`` being optional, or a function says which (`taps.select`); an
        unknown one is a ``ValueError``. Where there is a tokenizer, `ids` may be texts (`to_ids`).

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> logits, cache = model.run_with_cache("The king and the", "blocks.*.attn.pattern")
            >>> logits.shape, cache["blocks.0.attn.hook_pattern"].shape
            ((4, 4096), (1, 10, 4, 4))
        """
        return self.run_with_edits(ids, {}, names, prepend_bos=prepend_bos)

    @retaining()
    def run_with_edits(
        self, ids: Any, changes: Mapping[str, AnyEdit], names: Names = (), *, prepend_bos: bool = False
    ) -> tuple[Array, ActivationCache]:
        """A run in which each named activation is replaced: by a function's result, an array, or in a `Part` only.

        Returns the logits and the activations in `names`, as they were after the edits. ``ValueError``, before
        anything runs, for an unknown name or an array of a wrong shape; afterwards, where activations overflow. (A
        plain call gives what was computed, whatever it is.)

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> changes = {"blocks.2.mlp_out": lambda x: 0 * x}
            >>> logits, cache = model.run_with_edits("The king and the", changes, "blocks.2.resid_*")
            >>> bool((cache["blocks.2.resid_post"] == cache["blocks.2.resid_mid"]).all())
            True
        """
        ids = self.to_ids(ids, prepend_bos=prepend_bos)
        batch = self.check_ids(ids)
        capture = Capture(select(names, self.config))
        changing = edits(changes, self.config, batch.shape) if changes else no_tap
        logits = self.forward(batch, tap=both(changing, capture if capture.names else no_tap))
        self.check_logits(logits, batch, tap=changing)
        return (logits if np.ndim(ids) > 1 else logits[0]), ActivationCache(
            capture.values, self.params, self.config, self.to_single_token
        )

    def run_with_gradients(
        self,
        ids: Any,
        metric: Metric,
        names: Names = None,
        parameters: bool = False,
        *,
        gradient_edits: Mapping[str, AnyEdit] | Tap | None = None,
        keep: str = "all",
        token_type_ids: Any = None,
        prepend_bos: bool = False,
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

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> from gpt2_np.gradients import logit_difference
            >>> run = model.run_with_gradients("The king and the", logit_difference(" sea", " king"), parameters=True)
            >>> run.value.shape, run.grads["blocks.3.attn.hook_z"].shape, run.params.wte.shape
            ((1,), (1, 4, 10, 32), (4096, 320))
        """
        from ..gradients.run import run_with_gradients

        return run_with_gradients(
            self,
            self.to_ids(ids, prepend_bos=prepend_bos),
            metric,
            names,
            parameters,
            gradient_edits=gradient_edits,
            keep=keep,
            token_type_ids=token_type_ids,
            check=self.check_logits,
        )

    def with_edits(self: AnyModel, changes: Mapping[str, AnyEdit]) -> AnyModel:
        """Return the same model with these edits in everything that it does: runs, scores, generation. This one is
        unchanged.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> silent = model.with_edits({"blocks.7.mlp_out": lambda x: 0 * x})
            >>> bool((silent([1, 2]) == model([1, 2])).all())
            False
        """
        edited = copy.copy(self)
        edited.tap = both(self.tap, edits(changes, self.config))
        return edited

    def with_params(self: AnyModel, params: Params) -> AnyModel:
        """Return the same model with other parameters of the same shapes (`internals.processing` makes some).

        ``ValueError`` names the first tensor of another shape. ``lm_head`` may be untied.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> from gpt2_np.internals.processing import process_weights
            >>> folded = model.with_params(process_weights(model.params))
            >>> int(folded([1, 2, 3])[-1].argmax()) == int(model([1, 2, 3])[-1].argmax())
            True
        """
        if self.backend not in BACKENDS:
            raise ValueError(f"other parameters are for the backends {', '.join(BACKENDS)}, got {self.backend}")
        check_shapes(params, self.config)
        altered = type(self)(params, self.config, folder=self.folder, backend=self.backend)
        altered.tap = self.tap
        return altered

    def unembed(self, x: Array) -> Array:
        """Return the logits of residual streams as they are, without the final norm: (…, D) → (…, V)."""
        return self.implementation.unembed(x)

    def check_ids(self, ids: Any) -> Array:
        """Return ids as a (B, T) int64 array that lies in the vocabulary and fits the context."""
        return check_ids(self.to_ids(ids), self.config)

    def to_ids(self, prompt: Any, *, prepend_bos: bool = False) -> Any:
        """Return the ids to study, unchanged. A `GPT2` takes texts too; here they are a ``ValueError``."""
        texts = [prompt] if isinstance(prompt, str) else prompt if isinstance(prompt, (list, tuple)) else []
        for one in texts:
            if isinstance(one, str):
                raise ValueError(f"a text needs a model with a tokenizer; give ids, got {one!r:.60}")
        return prompt

    def to_single_token(self, text: str) -> int:
        """Return the id of a one-token text, which only a `GPT2` knows; here this is a ``ValueError``."""
        raise ValueError(f"a text needs a model with a tokenizer; give ids, got {text!r:.60}")

    def to_str_tokens(self, prompt: Any, *, prepend_bos: bool = False) -> list[str]:
        """Return each token of one prompt as a text, by TransformerLens's name; without a tokenizer the ids' numbers.

        ``ValueError`` for several prompts.
        """
        row = check_ids(self.to_ids(prompt, prepend_bos=prepend_bos), self.config)
        if len(row) != 1:
            raise ValueError(f"to_str_tokens takes one prompt, got {len(row)} rows")
        return self.texts(row[0].tolist())

    @property
    def texts(self) -> Texts:
        """The function that turns ids into texts for tables and pictures: here numbers; a `GPT2` has a tokenizer."""
        return Texts()


class Origin(NamedTuple):
    """The origin of a model's parameters: the arguments of `Model.from_pretrained`, with an absolute folder."""

    name: str | Path | None
    dtype: str
    params: Params


def _load_again(kind: type[AnyModel], name: str | Path | None, dtype: str, backend: str) -> AnyModel:
    return kind.from_pretrained(name, dtype=dtype, backend=backend)

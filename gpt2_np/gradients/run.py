"""One forward and backward run: the implementation of `Model.run_with_gradients`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import display
from ..display import Readable
from ..engine import available
from ..model.activations import ActivationCache
from ..model.config import Config
from ..model.edits import AnyEdit, edits
from ..model.forward import forward
from ..model.operations import Operations
from ..model.params import Params, matrices
from ..model.taps import Capture, Names, Tap, both, no_tap, select
from ..system.reuse import retaining
from ..system.threads import counted_once
from ..weights.panels import Matrix
from . import joined, threaded
from .backward import backward
from .edited import Edited
from .kept import Kept
from .metrics import CrossEntropy, Metric, checked
from .operations import Derivatives

Array = np.ndarray
Ids = Array | Sequence[int] | Sequence[Sequence[int]]  # (T,), (B, T), or rows of unequal lengths


class Runs(Protocol):
    """The interface of a model for a run with gradients."""

    params: Params
    config: Config
    tap: Tap

    @property
    def backend(self) -> str:
        """The name of the implementation: gradients are available everywhere except on "torch"."""
        ...

    def check_ids(self, ids: Any) -> Array:
        """Return ids as a (B, T) array. ``ValueError`` for invalid ones."""
        ...

    def to_single_token(self, text: str) -> int:
        """Return a token's id. ``ValueError`` for a text that isn't one token."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class GradientRun:
    """A run of a model with its gradients. For one row of ids, (T,), ``logits`` are (T, V); all else keeps its B axis.

    ``value`` is the metric of each row, (B,). ``cache[name]`` is an activation and ``grads[name]`` the gradient of the
    sum of the values with respect to it, as it left its tap: two arrays of one shape. ``lengths`` are the rows' numbers
    of ids, (B,): after a row's end gradients are 0, and logits and activations mean nothing. ``params`` holds the
    parameters' gradients where they were asked for.
    """

    value: Array
    logits: Array
    cache: ActivationCache
    grads: ActivationCache
    lengths: Array
    params: Params | None = None

    def __repr__(self) -> str:
        parameters = "" if self.params is None else " and of parameters"
        return (
            f"GradientRun(value={display.brief(self.value)}, logits={display.brief(self.logits)}, "
            f"gradients of {len(self.grads)} activations{parameters})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("value", display.brief(self.value)),
            ("lengths", display.brief(self.lengths)),
            ("logits", display.brief(self.logits)),
            ("gradients of parameters", "not asked for" if self.params is None else display.brief_repr(self.params)),
        ]
        title = "A run with gradients: cache and grads hold arrays of these names and shapes"
        return display.boxed(display.table(rows), display.arrays(self.grads), title=title)


@retaining()
@counted_once()
def run_with_gradients(
    model: Runs,
    ids: Ids,
    metric: Metric,
    names: Names = None,
    parameters: bool = False,
    *,
    gradient_edits: Mapping[str, AnyEdit] | Tap | None = None,
    keep: str = "all",
    token_type_ids: Ids | None = None,
    check: Callable[[Array, Array], object] | None = None,
    after: int = 0,
    last_only: bool = False,
) -> GradientRun:
    """Implement `Model.run_with_gradients`; `check` receives the logits of some ids before they are differentiated.

    With `after` only the rows after so many are differentiated: ``value`` and ``grads`` are theirs, ``logits`` and
    ``cache`` those of all. The others go through the same products, for which each weight is read once. It is for
    models without edits, rows of one length, and ``keep="all"``. With `last_only` only each row's last position goes
    through the final norm and the unembedding, and the metric gets its logits alone.
    """
    metric = prepared(metric, model)
    batch, lengths = padded(model, ids)
    types = None if token_type_ids is None else padded(model, token_type_ids)[0]
    if types is not None and types.shape != batch.shape:
        raise ValueError(f"token_type_ids must have the shape of ids, {batch.shape}, got {types.shape}")
    check_weights(model, parameters)
    chosen = select(names, model.config)
    values, gradients = Capture(chosen), Capture(chosen)
    changes = gradient_tap(gradient_edits, model.config, batch)
    edited = None if model.tap is no_tap else Edited(model.tap)
    ops, derivatives = means(model, bool(chosen) or changes is not no_tap or model.tap is not no_tap)

    kept = Kept(model.params, model.config, ops, edited=edited, keep=keep, parameters=parameters)
    tap = both(From(after, kept) if after else kept.tap, values if chosen else no_tap)
    with np.errstate(over="ignore", invalid="ignore"):  # `check` reports an overflow
        logits = forward(
            model.params, model.config, batch, ops=kept.ops, tap=tap, token_type_ids=types, last_only=last_only
        )
    if check is not None:
        for some in rows_of(lengths, batch.shape[1]):
            check(logits[some], batch[some])
    if isinstance(changes, OfValues):
        changes = changes.given(kept.left)
    batch, lengths = batch[after:], lengths[after:]
    value, *gradient = of_metric(metric, logits[after:], batch, lengths, derivatives)
    ends = no_tap if (lengths == batch.shape[1]).all() else Ends(lengths)
    through = no_tap if edited is None else edited.backward()
    tap = both(both(ends, changes), both(gradients if chosen else no_tap, through))
    found = backward(
        model.params,
        model.config,
        batch,
        gradient.pop(),
        kept,
        derivatives=derivatives,
        tap=tap,
        parameters=parameters,
        token_type_ids=types,
    )
    cache, grads = (
        ActivationCache({name: one.values[name] for name in chosen}, model.params, model.config, model.to_single_token)
        for one in (values, gradients)
    )
    return GradientRun(value, logits if several(ids) else logits[0], cache, grads, lengths, found)


def means(model: Runs, observed: bool) -> tuple[Operations, Derivatives]:
    """Return the operations of the forward pass and their derivatives.

    As in other runs, taps get the readable operations, so that observing changes nothing; without taps, as in training,
    kernels are used unless the model's backend is "numpy". The two agree up to rounding.
    """
    if observed or model.backend != "numba" or model.params.ln_f.weight.dtype != np.float32 or not available.loads():
        return joined, threaded
    from . import compiled, joined_compiled

    return joined_compiled, compiled


def gradient_tap(changes: Mapping[str, AnyEdit] | Tap | None, config: Config, batch: Array) -> Tap:
    """Return the tap of the backward pass that replaces gradients as the caller asks."""
    if isinstance(changes, Mapping):
        return edits(changes, config, (batch.shape[0], batch.shape[1])) if changes else no_tap
    return no_tap if changes is None else changes


@runtime_checkable
class OfValues(Protocol):
    """A tap of the backward pass that needs activations: it is replaced by what `given` returns."""

    def given(self, values: Mapping[str, Array]) -> Tap:
        """Return the tap of one backward pass whose forward pass left these values (`kept.NEEDED`, with
        ``keep="all"``).
        """
        ...


class From(Readable):
    """A tap that shows another one the rows from one on, and changes nothing."""

    def __init__(self, first: int, tap: Tap) -> None:
        self.first, self.tap = first, tap

    def wants(self, name: str) -> bool:
        return self.tap.wants(name)

    def __call__(self, name: str, x: Array) -> Array:
        if self.wants(name):
            self.tap(name, x[self.first :])
        return x


class Ends(Readable):
    """A tap of the backward pass that removes gradients at the keys after a row's end, for rows of unequal lengths.

    Everywhere else they are already 0 there. A pattern's zeros do have gradients, as all future positions have.
    """

    def __init__(self, lengths: Array) -> None:
        self.lengths = lengths

    def wants(self, name: str) -> bool:
        return False

    def __call__(self, name: str, x: Array) -> Array:
        if not name.endswith("attn.pattern"):
            return x
        inside = np.arange(x.shape[-1]) < self.lengths[:, None]
        return np.where(inside[:, None, None], x, 0).astype(x.dtype, copy=False)


def prepared(metric: Any, model: Any) -> Any:
    """Check a metric, and turn its tokens into ids of the model's vocabulary. ``ValueError`` for an invalid one."""
    metric = checked(metric)
    if hasattr(metric, "with_tokens"):
        metric = metric.with_tokens(lambda text: model.tokenizer.encode(text, add_special_tokens=False))
    return metric


def several(ids: Ids) -> bool:
    """Tell whether ids are several rows, and not one, (T,)."""
    return np.ndim(ids) > 1 if isinstance(ids, np.ndarray) else any(np.ndim(row) for row in ids)


def padded(model: Runs, ids: Ids) -> tuple[Array, Array]:
    """Return ids as a checked (B, T) array, with unequal rows padded by 0 on the right, and the lengths: (B,)."""
    if isinstance(ids, np.ndarray) or not isinstance(ids, Sequence) or not several(ids):
        batch = model.check_ids(ids)
        return batch, np.full(len(batch), batch.shape[1])
    rows = [model.check_ids(row) for row in ids]
    if any(len(row) != 1 for row in rows):
        raise ValueError("each row of ids must be one text, in one dimension")
    lengths = np.array([row.shape[1] for row in rows])
    batch = np.zeros((len(rows), lengths.max()), np.int64)
    for place, row, length in zip(batch, rows, lengths, strict=True):
        place[:length] = row[0]
    return batch, lengths


def rows_of(lengths: Array, T: int) -> list[tuple[slice, slice]]:
    """Divide a padded batch into parts without padding: the whole if no row has any, else each row up to its end."""
    if (lengths == T).all():
        return [(slice(None), slice(None))]
    return [(slice(row, row + 1), slice(length)) for row, length in enumerate(lengths.tolist())]


def of_metric(
    metric: Any, logits: Array, ids: Array, lengths: Array, derivatives: Derivatives = threaded
) -> tuple[Array, Array]:
    """Return the metric's value of each row, (B,), and its gradient in the logits' dtype, (B, T, V).

    ``ValueError`` for results of other shapes.
    """
    B, T, _ = logits.shape
    if (lengths == T).all():
        return _both(metric, logits, ids, derivatives)
    value, gradient = np.empty(B), np.zeros_like(logits)
    for row, some in enumerate(rows_of(lengths, T)):
        alone = metric.of_row(row) if hasattr(metric, "of_row") else metric
        value[some[0]], gradient[some] = _both(alone, logits[some], ids[some], derivatives)
    return value, gradient


def _both(metric: Any, logits: Array, ids: Array, derivatives: Derivatives) -> tuple[Array, Array]:
    if isinstance(metric, CrossEntropy):
        value, gradient = metric.value_and_gradient(logits, ids, derivatives.cross_entropy)
    elif hasattr(metric, "value_and_gradient"):
        value, gradient = metric.value_and_gradient(logits, ids)
    else:
        value, gradient = metric.value(logits, ids), metric.gradient(logits, ids)
    value, gradient = np.asarray(value), np.asarray(gradient)
    for what, got, shape in (("value", value, logits.shape[:1]), ("gradient", gradient, logits.shape)):
        if got.shape != shape:
            raise ValueError(f"a metric's {what} must have the shape {shape}, got {got.shape}")
    return value, gradient.astype(logits.dtype, copy=False)


def check_weights(model: Runs, parameters: bool) -> None:
    """Raise ``ValueError`` if a run with gradients isn't possible on these weights."""
    if model.backend == "torch":
        raise ValueError("gradients are taken on --backend numpy or numba, not on torch")
    if not parameters:
        return
    first = matrices(model.params.h[0])[0].weight
    if isinstance(first, Matrix):
        raise ValueError(
            f"parameters=True needs weights in float32 or float64, got {first.precision}, which has no gradient: "
            "load the model in float32, or ask for gradients of activations"
        )
    if not isinstance(first, np.ndarray):
        raise ValueError("parameters=True needs adapters to be merged: with_adapters(model, adapters, merge=True)")

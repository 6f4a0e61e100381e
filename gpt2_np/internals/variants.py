"""Many edited runs of one prompt in batches: the basis of ablation and patching sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..display import Readable
from ..gradients.metrics import LogitDifference, LogProbability
from ..gradients.metrics import log_probability as log_probability
from ..gradients.metrics import logit_difference as logit_difference
from ..model.activations import ActivationCache
from ..model.edits import AnyEdit, Edits, edits
from ..model.ops import log_softmax
from ..model.taps import no_tap
from ..session.implementation import NumPy
from ..session.model import Model
from .partial_runs import last_stream, logits_of

Array = np.ndarray
END = 1 << 20  # behind all blocks
ENDS = ("ln_final.in", "ln_final.scale", "ln_final.normalized", "ln_final.out", "unembed")
Variant = Mapping[str, AnyEdit]
Metric = Callable[[Array], Array]


class PerRow(Readable):
    """A tap that gives each row of a batch its own edits; gradients pass through them, as through a model's edits."""

    def __init__(self, rows: Sequence[Edits]) -> None:
        self.rows = rows

    def wants(self, name: str) -> bool:
        return any(row.wants(name) for row in self.rows)

    def __call__(self, name: str, x: Array) -> Array:
        if not self.wants(name):
            return x
        x = np.array(x)
        for number, row in enumerate(self.rows):
            if row.wants(name):
                x[number : number + 1] = row(name, x[number : number + 1])
        return x

    def backward(self, name: str, x: Array, gradient: Array) -> Array:
        """Return the gradient of the value ``x`` that entered a point, each row's by its own edits; see
        `Edits.backward`.
        """
        if not self.wants(name):
            return gradient
        gradient = np.array(gradient)
        for number, row in enumerate(self.rows):
            some = slice(number, number + 1)
            gradient[some] = row.backward(name, x[some], gradient[some])
        return gradient

    def check_derivatives(self) -> None:
        """Raise ``ValueError``, which names the first edit that gradients can't pass through."""
        for row in self.rows:
            row.check_derivatives()


def run_variants(
    model: Model,
    ids: Sequence[int] | Array,
    variants: Sequence[Variant],
    metric: Metric,
    *,
    batch: int = 32,
    last: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Array:
    """Return the metric of each variant of a run: N variants → (N,).

    Every variant is a row of edits as in `Model.run_with_edits`, for one row of ids (T,). They run `batch` at a time;
    `progress` receives the number of variants of each batch. A metric that reads the `last` position's logits alone is
    given no others; None finds that out by `reads_last`. ``ValueError``, before the first run, for an invalid edit,
    and for activations that overflow.
    """
    row = model.check_ids(ids)
    if len(row) != 1:
        raise ValueError(f"variants are made of one prompt, got {len(row)} rows")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    taps = [edits(variant, model.config, row.shape) for variant in variants]
    metric = in_ids(metric, model)
    results, runs = np.zeros(len(taps)), Runs(model, row, reads_last(metric) if last is None else last)
    order = sorted(range(len(taps)), key=lambda one: first_block(taps[one].changes))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        logits = runs.logits(PerRow([taps[one] for one in part]), first_block(taps[part[0]].changes))
        results[part] = np.asarray(metric(logits), np.float64)
        if progress is not None:
            progress(len(part))
    return results


def reads_last(metric: Metric) -> bool:
    """Tell whether a metric is known to read the logits of the last position alone."""
    return isinstance(metric, (LogitDifference, LogProbability)) and np.array_equal(metric.position, -1)


def first_block(names: Iterable[str]) -> int:
    """Return the first block that edits of these points reach: −1 for the embeddings, `END` for what follows them."""
    return min(map(_block, names), default=END)


def _block(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else -1 if parts[0].endswith("embed") and name != "unembed" else END


class Runs(Readable):
    """The edited runs of one prompt. What comes before an edit is the same in all of them, and is computed once.

    A model with edits of its own, and the torch reference, run from the start. Where the metric reads the last position
    alone, only its logits are made.
    """

    def __init__(self, model: Model, row: Array, last: bool) -> None:
        self.model, self.row, self.last = model, row, last
        self.streams: ActivationCache | None = None
        self.resumes = model.tap is no_tap and isinstance(model.implementation, NumPy)

    def logits(self, tap: PerRow, first: int) -> Array:
        """Return the logits of a batch whose edits begin in block `first`: (B, T, V), or the last position's alone.

        ``ValueError`` where activations overflow.
        """
        model, rows = self.model, np.repeat(self.row, len(tap.rows), axis=0)
        logits = None
        if self.resumes and first >= 0:
            if self.streams is None:
                names = ["blocks.*.resid_pre", f"blocks.{model.config.n_layer - 1}.resid_post"]
                _, self.streams = model.run_with_cache(self.row, names)
            logits = self._resumed(tap, min(first, model.config.n_layer), len(rows), self.streams)
        if logits is None:
            logits = model.forward(rows, tap=tap)
        model.check_logits(logits, rows, tap=tap)
        return logits

    def _resumed(self, tap: PerRow, first: int, count: int, streams: ActivationCache) -> Array | None:
        """The same from block `first` on; None where activations overflow, for the whole run to say where."""
        config, L = self.model.config, self.model.config.n_layer
        assert isinstance(self.model.implementation, NumPy)
        ops, params = self.model.implementation.operations(tap)
        x = streams["resid_pre", first] if first < L else streams["resid_post", L - 1]
        with np.errstate(over="ignore", invalid="ignore"):
            x = last_stream(params, config, ops, np.repeat(x, count, axis=0), first, tap)
            if not np.isfinite(x).all():
                return None
            if self.last and not any(tap.wants(name) for name in ENDS):
                x = x[:, -1:]
            return logits_of(params, config, ops, x, tap)


# ---- metrics: (rows, T, V) logits → (rows,); those of `gradients` are some too --------------------------------------


def mean_loss(ids: Sequence[int] | Array) -> Metric:
    """Return the mean loss (nats a token) of predicting each id of a prompt from those before it."""
    targets = np.asarray(ids)[1:]
    places = np.arange(len(targets))
    return lambda logits: -log_softmax(logits[:, :-1])[:, places, targets].mean(axis=1)


def in_ids(metric: Metric, model: Model) -> Metric:
    """Return a metric whose tokens may be texts, with ids in their place."""
    if not hasattr(metric, "with_tokens"):
        return metric
    known: Metric = metric.with_tokens(lambda text: [model.to_single_token(text)])
    return known


def of_row(metric: Metric, row: int) -> Metric:
    """Return a metric for one of several prompts, if its arguments differ from row to row."""
    one: Metric = metric.of_row(row) if hasattr(metric, "of_row") else metric
    return one


def grid(*sizes: int) -> Iterator[tuple[int, ...]]:
    """Yield every index of an array of these sizes, in order."""
    return iter(np.ndindex(*sizes))

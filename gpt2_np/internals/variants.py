"""Many edited runs of one prompt in batches: the basis of ablation and patching sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..display import Readable
from ..gradients import joined
from ..gradients.metrics import LogitDifference, LogProbability
from ..gradients.metrics import log_probability as log_probability
from ..gradients.metrics import logit_difference as logit_difference
from ..model.config import Config
from ..model.edits import AnyEdit, Edits, edits
from ..model.operations import Operations
from ..model.ops import log_softmax
from ..model.params import Params
from ..model.taps import no_tap
from ..session.implementation import NumPy
from ..session.model import Model
from .partial_runs import activations, last_stream, logits_of

Array = np.ndarray
END = 1 << 20  # behind all blocks
MOST_WAITING = 256  # last positions whose logits are made together
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
    waiting: list[tuple[list[int], Array]] = []

    def measure() -> None:
        """The metric of the last positions that wait: their logits are one product, at the speed of a large one."""
        if waiting:
            with np.errstate(over="ignore", invalid="ignore"):  # `check_logits` reports an overflow
                logits = logits_of(*runs.means(), np.concatenate([x for _, x in waiting]), no_tap)
            model.check_logits(logits, row)
            results[[one for part, _ in waiting for one in part]] = np.asarray(metric(logits), np.float64)
            waiting.clear()

    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        tap, first = PerRow([taps[one] for one in part]), first_block(taps[part[0]].changes)
        x = runs.ends(tap, first)
        if x is not None:
            waiting.append((part, x))
        else:
            results[part] = np.asarray(metric(runs.logits(tap, first)), np.float64)
        if sum(len(x) for _, x in waiting) >= MOST_WAITING:
            measure()
        if progress is not None:
            progress(len(part))
    measure()
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

    A model with edits of its own, and the torch reference, run from the start. `last`: the metric reads the last
    position alone.
    """

    def __init__(self, model: Model, row: Array, last: bool) -> None:
        self.model, self.row, self.last = model, row, last
        self.streams: Mapping[str, Array] | None = None
        self.resumes = model.tap is no_tap and isinstance(model.implementation, NumPy)

    def means(self) -> tuple[Params, Config, Operations]:
        """Return what these runs are made of: the parameters, and operations that join the positions of all rows.

        A prompt's rows are many and short: one after another they would each read a layer's weights again.
        """
        return self.model.params, self.model.config, joined

    def ends(self, tap: PerRow, first: int) -> Array | None:
        """Return a batch's last streams at the last position, (B, 1, D); None where more than that is needed."""
        if not self.last or any(tap.wants(name) for name in ENDS):
            return None
        x = self.streams_of(tap, first)
        return None if x is None else x[:, -1:]

    def logits(self, tap: PerRow, first: int) -> Array:
        """Return the logits of a batch whose edits begin in block `first`, (B, T, V).

        ``ValueError`` where activations overflow.
        """
        rows, x = np.repeat(self.row, len(tap.rows), axis=0), self.streams_of(tap, first)
        with np.errstate(over="ignore", invalid="ignore"):
            logits = self.model.forward(rows, tap=tap) if x is None else logits_of(*self.means(), x, tap)
        self.model.check_logits(logits, rows, tap=tap)
        return logits

    def streams_of(self, tap: PerRow, first: int) -> Array | None:
        """Return each row's last stream, (B, T, D); None where runs begin at the start, or activations overflow."""
        L = self.model.config.n_layer
        if not self.resumes or first < 0:
            return None
        names = [*(f"blocks.{layer}.resid_pre" for layer in range(L)), f"blocks.{L - 1}.resid_post"]
        if self.streams is None:
            try:
                self.streams = activations(self.model, self.row, names)
            except ValueError:  # They overflow. A variant may not, and where it does, `check_logits` names the layer.
                return None
        first = min(first, L)
        x = np.repeat(self.streams[names[first]], len(tap.rows), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            x = last_stream(*self.means(), x, first, tap)
        return x if np.isfinite(x).all() else None


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

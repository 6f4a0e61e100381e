"""Many edited runs of one prompt in batches: the basis of ablation and patching sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..display import Readable
from ..gradients.metrics import log_probability as log_probability
from ..gradients.metrics import logit_difference as logit_difference
from ..model.edits import AnyEdit, Edits, edits
from ..model.ops import log_softmax
from ..session.model import Model

Array = np.ndarray
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
    progress: Callable[[int], object] | None = None,
) -> Array:
    """Return the metric of each variant of a run: N variants → (N,).

    Every variant is a row of edits as in `Model.run_with_edits`, for one row of ids (T,). They run `batch` at a time;
    `progress` receives the number of variants of each batch. ``ValueError``, before the first run, for an invalid edit,
    and for activations that overflow.
    """
    row = model.check_ids(ids)
    if len(row) != 1:
        raise ValueError(f"variants are made of one prompt, got {len(row)} rows")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    taps = [edits(variant, model.config, row.shape) for variant in variants]
    metric = in_ids(metric, model)
    results = [np.zeros(0)]
    for start in range(0, len(taps), batch):
        part = taps[start : start + batch]
        rows, tap = np.repeat(row, len(part), axis=0), PerRow(part)
        logits = model.forward(rows, tap=tap)
        model.check_logits(logits, rows, tap=tap)
        results.append(np.asarray(metric(logits), np.float64))
        if progress is not None:
            progress(len(part))
    return np.concatenate(results)


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

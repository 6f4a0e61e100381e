"""Logits of many streams and positions: made some at a time, and read without a copy of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from decoders.base.ranking import highest

from ..display import Readable
from ..engine.threaded import in_pieces
from ..gradients.products import product
from ..model import ops
from ..session.model import Model
from ..system.memory import empty

Array = np.ndarray
ROWS = 512  # of logits at a time: enough for a product at full speed


def some_logits(model: Model, rows: Array, most: int) -> Iterator[Array]:
    """Yield the logits of streams through the final norm: (n, D) → up to `most` of (n, V) at a time, in one array."""
    head, epsilon = model.params.lm_head, model.config.layer_norm_epsilon
    logits = empty((min(most, len(rows)), model.config.vocab_size), rows.dtype)
    for start in range(0, len(rows), most):
        normed = ops.layer_norm(rows[start : start + most], *model.params.ln_f, epsilon)
        if isinstance(head, np.ndarray):
            yield product(normed, head.T, logits[: len(normed)])
        else:
            yield ops.unembed(normed, head)


def likeliest(logits: Array, count: int) -> tuple[Array, Array]:
    """Return the likeliest ids of each row of logits and their probabilities: (…, V) → two (…, count), int64 and
    float64.

    Of equals the first comes first. It works row by row, on threads: nothing else of the vocabulary's size is sorted or
    kept.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    count = min(count, rows.shape[1])
    best, chances = np.empty((len(rows), count), np.int64), np.empty((len(rows), count))

    def look(some: slice) -> None:
        for row, ids, shares in zip(rows[some], best[some], chances[some], strict=True):
            ids[:] = highest(row, count)
            shares[:] = np.exp(row[ids] - ops.log_normalizer(row))

    in_pieces(look, len(rows), rows.size)
    shape = (*logits.shape[:-1], count)
    return best.reshape(shape), chances.reshape(shape)


class Divergence(Readable):
    """KL(p ‖ q) in nats of each row of logits from rows that many others are compared with: (T, V), p's logits.

    What it needs of p alone is worked out once. Differences and exponentials have the logits' precision, sums
    float64's. It works on a few rows at a time, on threads: copies of all logits in float64 would cost more than the
    products that made them.
    """

    def __init__(self, logits: Array) -> None:
        self.logits, self.chances = logits, empty(logits.shape, logits.dtype)
        self.totals, self.normalizers = np.empty((2, len(logits)))

        def look(some: slice) -> None:
            for at in range(some.start, some.stop):
                chances, top = self.chances[at], logits[at].max()
                np.exp(np.subtract(logits[at], top, out=chances), out=chances)
                self.totals[at] = chances.sum(dtype=np.float64)
                self.normalizers[at] = np.log(self.totals[at]) + top

        in_pieces(look, len(logits), logits.size)

    def __call__(self, others: Array, rows: Array) -> Array:
        """Return how far each of some logits, (n, V), is from the row of p's that it belongs to, (n,): (n,) float64."""
        found = np.empty(len(others))

        def look(some: slice) -> None:
            for at in range(some.start, some.stop):
                row, other = rows[at], others[at]
                shares = self.logits[row] - other
                shares *= self.chances[row]
                gap = self.normalizers[row] - ops.log_normalizer(other)
                found[at] = shares.sum(dtype=np.float64) / self.totals[row] - gap

        in_pieces(look, len(others), others.size)
        return found

"""Logits of many streams and positions: made some at a time, and read without a copy of the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from decoders.base.ranking import highest

from ..engine.threaded import in_pieces
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
            yield np.matmul(normed, head.T, out=logits[: len(normed)])
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


def divergence(last: Array, other: Array) -> Array:
    """KL(last ‖ other) in nats of each row of two arrays of logits: (T, V) twice → (T,), float64.

    Differences and exponentials have the logits' precision, sums float64's. It works on a few rows at a time, on
    threads: copies of all logits in float64 would cost more than the products that made them.
    """
    found = np.empty(len(last))

    def look(some: slice) -> None:
        for at in range(some.start, some.stop):
            chances = last[at] - last[at].max()
            np.exp(chances, out=chances)
            total = chances.sum(dtype=np.float64)
            chances *= last[at] - other[at]
            gap = ops.log_normalizer(last[at]) - ops.log_normalizer(other[at])
            found[at] = chances.sum(dtype=np.float64) / total - gap

    in_pieces(look, len(last), last.size)
    return found

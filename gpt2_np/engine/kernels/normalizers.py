"""The kernel of log-likelihoods: what turns logits into log-probabilities, and the likeliest id, in one go."""

from __future__ import annotations

import math

import numpy as np
from numba import types, void

from .compiled import compiled
from .exponential import exp_and_sum, largest
from .kernel_types import SERIAL, lengths1, matrix
from .threads import in_threads, slices

Array = np.ndarray
SUMMED = 512  # exponentials per partial sum in float32; the partial sums are added in float64
doubles1, longs1 = (types.Array(kind, 1, "C") for kind in (types.float64, types.int64))


@compiled(void(matrix, lengths1, doubles1, longs1), **SERIAL)
def normalizer_rows(logits: Array, places: Array, normalizer: Array, best: Array) -> None:
    """Write `ops.log_normalizer` and the likeliest id of some rows of finite logits, (n, V), into their places."""
    V = logits.shape[1]
    room = np.empty((1, SUMMED), np.float32)
    for place in places:
        top, total = largest(logits, place, V), 0.0
        for first in range(0, V, SUMMED):
            count = min(V - first, SUMMED)
            total += exp_and_sum(logits[:, first:], place, count, top, room, 0)
        normalizer[place] = math.log(total) + top
        v = 0
        while v < V - 1 and logits[place, v] != top:
            v += 1
        best[place] = v


def normalizers_and_best(logits: Array, places: Array, normalizer: Array, best: Array) -> None:
    """Run `normalizer_rows` on each thread's share of the places."""
    in_threads(lambda part: normalizer_rows(logits, places[part], normalizer, best), slices(len(places)))

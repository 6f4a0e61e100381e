"""The losses of two runs and the divergence of one from the other, in one pass over each position's logits."""

from __future__ import annotations

import math

import numpy as np
from numba import types, void

from .compiled import compiled
from .dot_products import dot
from .exponential import CHUNK, exp_and_sum_all, largest
from .kernel_types import SERIAL, lengths1, matrix

Array = np.ndarray
doubles2 = types.Array(types.float64, 2, "A")  # a part of a larger array


@compiled(void(matrix, matrix, lengths1, doubles2), **SERIAL)
def divergence_rows(plain: Array, other: Array, targets: Array, out: Array) -> None:
    """Write each position's loss of `plain`, of `other`, and KL(plain ‖ other) into ``out``, (3, n), in nats.

    (n, V), and (n, V) or one row that stands for all, (1, V); (n,) ids.
    """
    n, V = plain.shape
    likely, work = np.empty((1, V), np.float32), np.empty((1, V), np.float32)
    other_best, other_log = np.float32(0), 0.0
    for row in range(n):
        mine = row if len(other) > 1 else 0
        best = largest(plain, row, V)
        total = exp_and_sum_all(plain, row, best, likely, 0)
        if row == 0 or mine:
            other_best = largest(other, mine, V)
            other_log = math.log(exp_and_sum_all(other, mine, other_best, work, 0))
        p, q, difference = plain[row], other[mine], work[0]
        for v in range(V):
            difference[v] = (p[v] - best) - (q[v] - other_best)
        mean = 0.0
        for first in range(0, V, CHUNK):
            mean += dot(likely, 0, work, 0, first, min(V, first + CHUNK))
        log = math.log(total)
        out[0, row] = log - (p[targets[row]] - best)
        out[1, row] = other_log - (q[targets[row]] - other_best)
        out[2, row] = mean / total - log + other_log

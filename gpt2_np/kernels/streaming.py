"""float32 matrices times few vectors: read the weights once, at the speed of memory.

Decoding reads every weight for each token, so all that matters is that memory streams. The (inputs, outputs) matrices
of the checkpoint are walked in blocks of whole rows, eight at a time, each block adding into sums of its own; the
blocks' sums are then added in a fixed order. Their number doesn't depend on the number of threads, nor a row's sums on
the other rows: any number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .arithmetic import ORDERED, ORDERED_PARALLEL, SERIAL, matrix, out2, out3, vector

Array = np.ndarray
BLOCKS = 8
TILE = 512  # of several rows, so many sums at a time: with their weights they stay in the first-level cache


@numba.njit(void(out3, vector, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def gather(sums: Array, bias: Array, r: int, out: Array) -> None:
    """One row of the result: the blocks' sums in order, and the bias."""
    row = out[r]
    row[:] = np.float32(0)
    for block in range(BLOCKS):
        mine = sums[block, r]
        for f in range(len(row)):
            row[f] += mine[f]
    for f in range(len(row)):
        row[f] += bias[f]


@register_jitable
def add_eight(
    sums: Array, x: Array, i: int,
    c0: Array, c1: Array, c2: Array, c3: Array, c4: Array, c5: Array, c6: Array, c7: Array,
) -> None:  # fmt: skip
    """Add eight inputs, from the i-th on, each times its row of weights."""
    x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
    x4, x5, x6, x7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
    for f in range(len(c0)):
        total = sums[f] + x0 * c0[f]
        total += x1 * c1[f]
        total += x2 * c2[f]
        total += x3 * c3[f]
        total += x4 * c4[f]
        total += x5 * c5[f]
        total += x6 * c6[f]
        sums[f] = total + x7 * c7[f]


@numba.njit(void(matrix, matrix, vector, out3, out2), **ORDERED_PARALLEL)
def stream_rows(x: Array, weight: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ weight + bias into ``out``. (R, D), (D, F), (F,) → (R, F); ``sums`` is room to work in, (BLOCKS, R, F …)."""
    R, D = x.shape
    F = weight.shape[1]
    size = ((D + BLOCKS - 1) // BLOCKS + 7) // 8 * 8
    for block in prange(BLOCKS):
        start, end = min(D, block * size), min(D, block * size + size)
        whole = start + (end - start) // 8 * 8
        mine = sums[block]
        mine[:, :F] = np.float32(0)
        for i in range(start, whole, 8):
            if R == 1:
                add_eight(mine[0], x[0], i, weight[i], weight[i + 1], weight[i + 2], weight[i + 3],
                          weight[i + 4], weight[i + 5], weight[i + 6], weight[i + 7])  # fmt: skip
                continue
            for left in range(0, F, TILE):
                right = min(F, left + TILE)
                c0, c1, c2, c3 = (weight[i, left:right], weight[i + 1, left:right],
                                  weight[i + 2, left:right], weight[i + 3, left:right])  # fmt: skip
                c4, c5, c6, c7 = (weight[i + 4, left:right], weight[i + 5, left:right],
                                  weight[i + 6, left:right], weight[i + 7, left:right])  # fmt: skip
                for r in range(R):
                    add_eight(mine[r, left:right], x[r], i, c0, c1, c2, c3, c4, c5, c6, c7)
        for i in range(whole, end):
            for r in range(R):
                for f in range(F):
                    mine[r, f] += x[r, i] * weight[i, f]
    if R == 1:
        gather(sums, bias, 0, out)
    else:
        for r in prange(R):
            gather(sums, bias, r, out)

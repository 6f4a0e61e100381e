"""Matrices times few vectors: read the weights once, at the speed of memory.

Decoding reads every weight for each token, so all that matters is that memory streams. The (inputs, outputs) matrices
of the checkpoint are walked in blocks of whole rows, eight at a time, each block adding into sums of its own; the
blocks' sums are then added in a fixed order. Their number doesn't depend on the number of threads, nor a row's sums on
the other rows: any number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import overload, register_jitable

from .arithmetic import (
    ORDERED,
    ORDERED_PARALLEL,
    SERIAL,
    codes4,
    codes8,
    codes16,
    grids,
    lower,
    matrix,
    out2,
    out3,
    prefetch,
    vector,
    widen,
)

Array = np.ndarray
BLOCKS = 8
TILE = 512  # of several rows, so many sums at a time: with their weights they stay in the first-level cache
LINE = 64  # bytes that memory hands over at a time
SHORT = 4096  # bytes of a row below which the processor doesn't foresee by itself what is read next
GROUP = 32  # as in `quantize`


def fetch(codes: Array, start: int, end: int) -> None:
    """Ask for these rows, where they exist, while the ones before are computed with.

    For short rows of codes only: the processor foresees the rest by itself, and better.
    """


@overload(fetch)
def _fetch(codes: Any, start: Any, end: Any) -> Any:
    def rows(codes: Any, start: Any, end: Any) -> Any:
        if end <= len(codes) and codes.shape[1] * codes.itemsize <= SHORT:
            for row in range(start, end):
                for place in range(0, codes.shape[1], LINE // codes.itemsize):
                    prefetch(codes, row, place)

    def nothing(codes: Any, start: Any, end: Any) -> Any:
        pass

    return nothing if codes.dtype == types.float32 else rows


@numba.njit(void(out3, matrix, vector, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def gather(sums: Array, scales: Array, bias: Array, r: int, out: Array) -> None:
    """One row of the result: the blocks' sums in order, scaled where there are scales, and the bias."""
    row = out[r]
    row[:] = np.float32(0)
    for block in range(BLOCKS):
        mine = sums[block, r]
        for f in range(len(row)):
            row[f] += mine[f]
    if len(scales):
        scale = scales[0]
        for f in range(len(row)):
            row[f] *= scale[f]
    for f in range(len(row)):
        row[f] += bias[f]


def signature(codes: Any, scales: Any) -> Any:
    """Of a product with weights of this type."""
    return void(matrix, codes, scales, vector, out3, out2)


@register_jitable
def add_eight(
    sums: Array, x: Array, i: int,
    c0: Array, c1: Array, c2: Array, c3: Array, c4: Array, c5: Array, c6: Array, c7: Array,
) -> None:  # fmt: skip
    """Add eight inputs, from the i-th on, each times its row of weights."""
    x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
    x4, x5, x6, x7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
    for f in range(len(c0)):
        total = sums[f] + x0 * widen(c0[f])
        total += x1 * widen(c1[f])
        total += x2 * widen(c2[f])
        total += x3 * widen(c3[f])
        total += x4 * widen(c4[f])
        total += x5 * widen(c5[f])
        total += x6 * widen(c6[f])
        sums[f] = total + x7 * widen(c7[f])


@numba.njit([signature(codes, matrix) for codes in (matrix, codes16, codes8)], **ORDERED_PARALLEL)
def stream_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ (codes · scales) + bias. (R, D), (D, F), (0 or 1, F), (F,) → out (R, F); sums (BLOCKS, R, F …)."""
    R, D = x.shape
    F = codes.shape[1]
    size = ((D + BLOCKS - 1) // BLOCKS + 7) // 8 * 8
    for block in prange(BLOCKS):
        start, end = min(D, block * size), min(D, block * size + size)
        whole = start + (end - start) // 8 * 8
        mine = sums[block]
        mine[:, :F] = np.float32(0)
        for i in range(start, whole, 8):
            fetch(codes, i + 8, i + 16)
            if R == 1:
                add_eight(mine[0], x[0], i, codes[i], codes[i + 1], codes[i + 2], codes[i + 3],
                          codes[i + 4], codes[i + 5], codes[i + 6], codes[i + 7])  # fmt: skip
                continue
            for left in range(0, F, TILE):
                right = min(F, left + TILE)
                c0, c1, c2, c3 = (codes[i, left:right], codes[i + 1, left:right],
                                  codes[i + 2, left:right], codes[i + 3, left:right])  # fmt: skip
                c4, c5, c6, c7 = (codes[i + 4, left:right], codes[i + 5, left:right],
                                  codes[i + 6, left:right], codes[i + 7, left:right])  # fmt: skip
                for r in range(R):
                    add_eight(mine[r, left:right], x[r], i, c0, c1, c2, c3, c4, c5, c6, c7)
        for i in range(whole, end):
            for r in range(R):
                for f in range(F):
                    mine[r, f] += x[r, i] * widen(codes[i, f])
    if R == 1:
        gather(sums, scales, bias, 0, out)
    else:
        for r in prange(R):
            gather(sums, scales, bias, r, out)


@numba.njit(signature(codes4, grids), **ORDERED_PARALLEL)
def stream_groups(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """`stream_rows` for int4: two inputs in a byte, 32 with a scale and a minimum of their own; D is whole groups.

    A byte is lower + 16 · upper, so x₀·lower + x₁·upper = (x₀ − x₁/16)·lower + (x₁/16)·byte, which saves a shift.
    """
    R = x.shape[0]
    F = codes.shape[1]
    groups = scales.shape[0]
    size = (groups + BLOCKS - 1) // BLOCKS
    tile = F if R == 1 else TILE
    sixteenth = np.float32(1 / 16)
    for block in prange(BLOCKS):
        mine = sums[block]
        mine[:, :F] = np.float32(0)
        for group in range(min(groups, block * size), min(groups, block * size + size)):
            fetch(codes, group * 16 + 16, group * 16 + 32)
            for left in range(0, F, tile):
                for r in range(R):
                    level = np.float32(0)
                    for d in range(group * GROUP, group * GROUP + GROUP):
                        level += x[r, d]
                    level *= np.float32(0.5)
                    right = min(F, left + tile)
                    part = mine[r, left:right]
                    scale, low = scales[group, 0, left:right], scales[group, 1, left:right]
                    for half in range(2):
                        i, j = group * GROUP + half * 16, group * 16 + half * 8
                        y0, y1, y2, y3 = x[r, i + 1], x[r, i + 3], x[r, i + 5], x[r, i + 7]
                        y4, y5, y6, y7 = x[r, i + 9], x[r, i + 11], x[r, i + 13], x[r, i + 15]
                        y0, y1, y2, y3 = y0 * sixteenth, y1 * sixteenth, y2 * sixteenth, y3 * sixteenth
                        y4, y5, y6, y7 = y4 * sixteenth, y5 * sixteenth, y6 * sixteenth, y7 * sixteenth
                        x0, x1, x2, x3 = x[r, i] - y0, x[r, i + 2] - y1, x[r, i + 4] - y2, x[r, i + 6] - y3
                        x4, x5, x6, x7 = x[r, i + 8] - y4, x[r, i + 10] - y5, x[r, i + 12] - y6, x[r, i + 14] - y7
                        c0, c1, c2, c3 = (codes[j, left:right], codes[j + 1, left:right],
                                          codes[j + 2, left:right], codes[j + 3, left:right])
                        c4, c5, c6, c7 = (codes[j + 4, left:right], codes[j + 5, left:right],
                                          codes[j + 6, left:right], codes[j + 7, left:right])
                        for f in range(right - left):
                            total = x0 * lower(c0[f]) + y0 * widen(c0[f])
                            total += x1 * lower(c1[f])
                            total += y1 * widen(c1[f])
                            total += x2 * lower(c2[f])
                            total += y2 * widen(c2[f])
                            total += x3 * lower(c3[f])
                            total += y3 * widen(c3[f])
                            total += x4 * lower(c4[f])
                            total += y4 * widen(c4[f])
                            total += x5 * lower(c5[f])
                            total += y5 * widen(c5[f])
                            total += x6 * lower(c6[f])
                            total += y6 * widen(c6[f])
                            total += x7 * lower(c7[f])
                            total += y7 * widen(c7[f])
                            part[f] += total * widen(scale[f]) + level * widen(low[f])
    if R == 1:
        gather(sums, bias[:0].reshape(0, 0), bias, 0, out)
    else:
        for r in prange(R):
            gather(sums, bias[:0].reshape(0, 0), bias, r, out)


def product(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ weights + bias into ``out``, (R, D) float32 → (R, F), for weights of any precision.

    ``sums`` is room to work in, (BLOCKS, R, F) or larger in its last axis.
    """
    (stream_groups if codes.dtype == np.uint8 else stream_rows)(x, codes, scales, bias, sums, out)


@overload(product)
def _product(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
    kernel = stream_groups if codes.dtype == types.uint8 else stream_rows

    def chosen(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
        kernel(x, codes, scales, bias, sums, out)

    return chosen

"""Reduced-precision matrices times few vectors: fewer bytes from memory, and whole numbers where there are some.

The matrices lie with their outputs down, so that each thread reads one piece of memory from end to end. int8 and int4
multiply whole numbers: the vectors' entries are rounded to such first (`quantize.rounded` says how finely), and sums of
whole numbers are the same in any order. Any number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from ..quantize import GROUP, INT4_STEP, INT8_STEP
from .arithmetic import PARALLEL, SERIAL, codes4, codes8, codes16, grids, matrix, out2, out3, vector, widen

Array = np.ndarray
ROWS = 32  # outputs that a thread takes at a time
EXACT = 1024  # products of 8 and 15 bits that a sum of 32 bits holds in any case


@register_jitable
def round_group(x: Array, share: float, levels: Array) -> float:
    """x as whole numbers of steps into ``levels`` (int16), and the size of a step: a share of the largest entry's."""
    largest = np.float32(0)
    for d in range(len(x)):
        largest = max(largest, abs(x[d]))
    step = largest * share
    per_step = np.float32(1) / step if step > 0 else np.float32(0)
    for d in range(len(x)):
        levels[d] = np.int16(np.rint(x[d] * per_step))
    return step


# ---- bfloat16 and int8: one output a row ----------------------------------------------------------------------------


@register_jitable
def dot_wide(x: Array, codes: Array) -> float:
    """The product of a vector and one output's bfloat16 weights."""
    total = np.float32(0)
    for d in range(len(codes)):
        total += x[d] * widen(codes[d])
    return total


@register_jitable
def dot_whole(levels: Array, codes: Array) -> int:
    """The product of at most EXACT whole numbers of 16 and of 8 bits. int32 at every step: Numba would widen to 64."""
    total = np.int32(0)
    for d in range(len(codes)):
        total = np.int32(total + np.int32(np.int32(codes[d]) * np.int32(levels[d])))
    return total


@numba.njit(void(matrix, codes16, matrix, vector, out3, out2), **PARALLEL)
def bfloat16_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ weights.T + bias into ``out``: (R, D), (F, D), (F,) → (R, F)."""
    R, F = len(x), len(codes)
    for part in prange((F + ROWS - 1) // ROWS):
        first = np.int64(part) * ROWS
        for f in range(first, min(F, first + ROWS)):
            for r in range(R):
                out[r, f] = dot_wide(x[r], codes[f]) + bias[f]


@numba.njit(void(matrix, codes8, matrix, vector, out3, out2), **PARALLEL)
def int8_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """`bfloat16_rows` for int8, with a scale an output: (1, F)."""
    R, D = x.shape
    F = len(codes)
    levels, steps = np.empty((R, D), np.int16), np.empty(R, np.float32)
    for r in range(R):
        steps[r] = round_group(x[r], INT8_STEP, levels[r])
    for part in prange((F + ROWS - 1) // ROWS):
        first = np.int64(part) * ROWS
        for f in range(first, min(F, first + ROWS)):
            for r in range(R):
                total = np.float32(0)
                for d in range(0, D, EXACT):
                    total += np.float32(dot_whole(levels[r, d : d + EXACT], codes[f, d : d + EXACT]))
                out[r, f] = total * (scales[0, f] * steps[r]) + bias[f]


# ---- int4: tiles of outputs, two inputs a byte ----------------------------------------------------------------------


@numba.njit(void(matrix, types.int16[:, ::1], types.int16[:, ::1], out2, out2), **SERIAL)
def round_groups(x: Array, levels: Array, start: Array, steps: Array, level: Array) -> None:
    """Every group of x as whole numbers, with what `int4_tiles` needs of each: where its sums start, its step, its sum.

    A function of its own: inside a parallel one, Numba would make each group's sum a parallel region.
    """
    R, D = x.shape
    levels[:, D:] = 0
    for r in range(R):
        for g in range(steps.shape[1]):
            mine = levels[r, g * GROUP : min(D, g * GROUP + GROUP)]
            steps[r, g] = round_group(x[r, g * GROUP : g * GROUP + len(mine)], INT4_STEP, mine)
            total = np.int32(0)
            for d in range(len(mine)):
                total += np.int32(mine[d])
            start[r, g], level[r, g] = np.int16(-8 * total), np.float32(total) * steps[r, g]


@register_jitable
def add_bytes(sums: Array, x: Array, c0: Array, c1: Array, c2: Array, c3: Array) -> None:
    """Add eight inputs' whole numbers, two in each row of bytes. Sums of 16 bits may wrap around on their way."""
    l0, u0, l1, u1, l2, u2, l3, u3 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for f in range(len(sums)):
        total = np.int16(sums[f] + np.int16(np.int16(np.int16(c0[f]) & np.int16(15)) * l0))
        total = np.int16(total + np.int16(np.int16(np.int16(c0[f]) >> np.int16(4)) * u0))
        total = np.int16(total + np.int16(np.int16(np.int16(c1[f]) & np.int16(15)) * l1))
        total = np.int16(total + np.int16(np.int16(np.int16(c1[f]) >> np.int16(4)) * u1))
        total = np.int16(total + np.int16(np.int16(np.int16(c2[f]) & np.int16(15)) * l2))
        total = np.int16(total + np.int16(np.int16(np.int16(c2[f]) >> np.int16(4)) * u2))
        total = np.int16(total + np.int16(np.int16(np.int16(c3[f]) & np.int16(15)) * l3))
        sums[f] = np.int16(total + np.int16(np.int16(np.int16(c3[f]) >> np.int16(4)) * u3))


@register_jitable
def add_scaled(totals: Array, sums: Array, scale: Array, middle: Array, step: float, level: float) -> None:
    """Add a group's whole numbers, times its scales, and its middles times the sum of its inputs."""
    for f in range(len(sums)):
        totals[f] += widen(scale[f]) * (np.float32(sums[f]) * step) + widen(middle[f]) * level


@numba.njit(void(matrix, codes4, grids, vector, out3, out2), **PARALLEL)
def int4_tiles(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x times int4 weights, plus the bias, into ``out``: (R, D), codes and scales as in `quantize.Matrix` → (R, F).

    A group's sum of (code − 8) · level fits into 16 bits: 8 · 127 · 32 is less than 2¹⁵. So it starts from −8 times the
    sum of its levels, and it doesn't matter that the sums of code · level may wrap around on their way.
    """
    R = len(x)
    tiles, groups, _, W = codes.shape
    levels, start = np.empty((R, groups * GROUP), np.int16), np.empty((R, groups), np.int16)
    steps, level = np.empty((R, groups), np.float32), np.empty((R, groups), np.float32)
    round_groups(x, levels, start, steps, level)
    for tile in prange(tiles):
        whole, totals = np.empty(W, np.int16), np.zeros((R, W), np.float32)
        for g in range(groups):
            for r in range(R):
                whole[:] = start[r, g]
                for j in range(0, 16, 4):
                    add_bytes(whole, levels[r, g * GROUP + 2 * j : g * GROUP + 2 * j + 8], codes[tile, g, j],
                              codes[tile, g, j + 1], codes[tile, g, j + 2], codes[tile, g, j + 3])  # fmt: skip
                add_scaled(totals[r], whole, scales[tile, g, 0], scales[tile, g, 1], steps[r, g], level[r, g])
        first = np.int64(tile) * W
        for r in range(R):
            for f in range(min(W, out.shape[1] - first)):
                out[r, first + f] = totals[r, f] + bias[first + f]

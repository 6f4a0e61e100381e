"""Reduced-precision matrices times few vectors: fewer bytes from memory, and whole numbers where there are some.

The matrices lie with their outputs down, so that each thread reads one piece of memory from end to end. int8 multiplies
whole numbers: the vectors' entries are rounded to such first (`quantize.Matrix.rounded` says how finely), and sums of
whole numbers are the same in any order. Any number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from ..quantize import INT8_STEP
from .arithmetic import ORDERED_PARALLEL, SERIAL, codes8, codes16, matrix, out2, out3, vector
from .dots import ALONE, FOUR, OUTPUTS, TOGETHER, dot_rows, multiply, no_sums, no_sums_alone, no_sums_of_rows

Array = np.ndarray
EXACT = 1024  # products of 8 and 15 bits that a sum of 32 bits holds in any case

_bfloat16 = numba.njit(void(matrix, codes16, vector, out2), **ORDERED_PARALLEL)(dot_rows)


@register_jitable
def bfloat16_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """`dots.dot_rows` for bfloat16, with the arguments of the others."""
    _bfloat16(x, codes, bias, out)


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


@numba.njit(void(matrix, types.int16[:, ::1], types.float32[::1]), **SERIAL)
def round_rows(x: Array, levels: Array, steps: Array) -> None:
    """Every row of x as whole numbers. A function of its own: a parallel one would take its loops apart."""
    for r in range(len(x)):
        steps[r] = round_group(x[r], INT8_STEP, levels[r])


@numba.njit(void(matrix, codes8, matrix, vector, out3, out2), **ORDERED_PARALLEL)
def int8_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ (codes · scales).T + bias into ``out``: (R, D), (F, D), (1, F), (F,) → (R, F)."""
    R, D = x.shape
    F = len(codes)
    levels, steps = np.empty((R, D), np.int16), np.empty(R, np.float32)
    round_rows(x, levels, steps)
    if F < FOUR:
        for r in range(R):
            for f in range(F):
                out[r, f] = np.float32(0)
                for d in range(D):
                    out[r, f] += np.float32(levels[r, d]) * np.float32(codes[f, d])
                out[r, f] = out[r, f] * (scales[0, f] * steps[r]) + bias[f]
        return
    if R < TOGETHER:
        for part in prange((F + OUTPUTS - 1) // OUTPUTS):
            first = np.int64(part) * OUTPUTS
            totals, values = np.empty((1, ALONE), np.int32), np.empty((1, ALONE), np.float32)
            for some in range(first, min(F, first + OUTPUTS), ALONE):
                f = min(some, F - ALONE)  # the last ones overlap others, which get the same sums once more
                for r in range(R):
                    values[:] = np.float32(0)
                    for start in range(0, D, EXACT):
                        multiply(no_sums_alone(codes), levels, r, codes, f, start, min(D, start + EXACT), totals)
                        for k in range(ALONE):
                            values[0, k] += np.float32(totals[0, k])
                    for k in range(ALONE):
                        out[r, f + k] = values[0, k] * (scales[0, f + k] * steps[r]) + bias[f + k]
        return
    for part in prange((F + OUTPUTS - 1) // OUTPUTS):
        first = np.int64(part) * OUTPUTS
        totals, values = np.empty((TOGETHER, FOUR), np.int32), np.empty((TOGETHER, FOUR), np.float32)
        for some in range(first, min(F, first + OUTPUTS), FOUR):
            f = min(some, F - FOUR)
            r = 0
            while r < R:
                mine = totals if r + TOGETHER <= R else totals[:1]
                values[:] = np.float32(0)
                for start in range(0, D, EXACT):
                    end = min(D, start + EXACT)
                    if r + TOGETHER <= R:
                        multiply(no_sums_of_rows(codes), levels, r, codes, f, start, end, mine)
                    else:
                        multiply(no_sums(codes), levels, r, codes, f, start, end, mine)
                    for row in range(len(mine)):
                        for k in range(FOUR):
                            values[row, k] += np.float32(mine[row, k])
                for row in range(len(mine)):
                    for k in range(FOUR):
                        out[r + row, f + k] = values[row, k] * (scales[0, f + k] * steps[r + row]) + bias[f + k]
                r += len(mine)

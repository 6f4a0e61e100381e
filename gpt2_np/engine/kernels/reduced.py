"""Reduced-precision matrices times few vectors: fewer bytes from memory, and whole numbers where there are some.

The matrices lie with their outputs down, so that each thread reads one piece of memory from end to end. int8 multiplies
whole numbers: the vectors' entries are rounded to such first (`quantize.Matrix.rounded` says how finely), and sums of
whole numbers are the same in any order. Any number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.quantize import INT8_STEP
from .arithmetic import (
    PARALLEL,
    SERIAL,
    bits_of_float,
    codes8,
    codes16,
    float_of_bits,
    matrix,
    out2,
    threads_here,
    vector,
)
from .compiled import compiled
from .digits import LONGEST, OFFSET, split
from .digits import dot as dot_of_digits
from .dots import OUTPUTS, ROWS, SOME, dot, dot_rows, dots_of_row, dots_of_rows, share
from .registers import BYTES

Array = np.ndarray
EXACT = 1024  # products of 8 and 15 bits that a sum of 32 bits holds in any case

_bfloat16 = compiled(void(matrix, codes16, vector, out2), **PARALLEL)(dot_rows)


@register_jitable
def bfloat16_rows(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """`dots.dot_rows` for bfloat16, with the arguments of the others."""
    _bfloat16(x, codes, bias, out)


@register_jitable
def round_group(x: Array, share: float, levels: Array) -> float:
    """x as whole numbers of steps into ``levels`` (int16), and the size of a step: a share of the largest entry's.

    By their bits, magnitudes are ordered as whole numbers are, with infinity and NaN last: a step is not finite where
    an entry isn't.
    """
    largest = np.int32(0)
    for d in range(len(x)):
        largest = max(largest, bits_of_float(x[d]) & np.int32(0x7FFFFFFF))
    step = float_of_bits(largest) * share
    per_step = np.float32(1) / step if step > 0 else np.float32(0)
    for d in range(len(x)):
        levels[d] = np.int16(np.rint(x[d] * per_step))
    return step


@compiled(void(matrix, types.int16[:, ::1], types.float32[::1]), **SERIAL)
def round_rows(x: Array, levels: Array, steps: Array) -> None:
    """Every row of x as whole numbers. A function of its own: a parallel one would take its loops apart."""
    for r in range(len(x)):
        steps[r] = round_group(x[r], INT8_STEP, levels[r])


@compiled(void(types.int16[:, ::1], types.uint8[:, :, ::1]), **SERIAL)
def split_rows(levels: Array, digits: Array) -> None:
    """`digits.split`, for the same reason."""
    split(levels, digits)


@register_jitable
def int8_part(
    part: int, levels: Array, steps: Array, digits: Array, codes: Array, scales: Array, bias: Array, out: Array
) -> None:
    """`int8_rows` for OUTPUTS outputs, by ``digits`` where there are some."""
    R, D = levels.shape
    F = len(codes)
    first, last = share(part, F)
    if R < ROWS or F < SOME:
        if BYTES and len(digits):
            for f in range(first, last):
                for r in range(R):
                    total = dot_of_digits(digits, r, codes, f) - OFFSET * np.int64(scales[1, f])
                    out[r, f] = np.float32(total) * (scales[0, f] * steps[r]) + bias[f]
            return
        for f in range(first, last):
            for r in range(R):
                total = np.int64(0)
                for start in range(0, D, EXACT):
                    total += dot(levels, r, codes, f, start, min(D, start + EXACT))
                out[r, f] = np.float32(total) * (scales[0, f] * steps[r]) + bias[f]
        return
    totals, exact = np.empty((ROWS, SOME), np.int64), np.empty((ROWS, SOME), np.int32)
    for some in range(first, last, SOME):
        f = min(some, F - SOME)  # the last ones overlap others, which get the same sums once more
        r = 0
        while r < R:
            mine = exact if r + ROWS <= R else exact[:1]
            totals[:] = 0
            for start in range(0, D, EXACT):
                end = min(D, start + EXACT)
                if r + ROWS <= R:
                    dots_of_rows(levels, r, codes, f, start, end, mine)
                else:
                    dots_of_row(levels, r, codes, f, start, end, mine)
                for row in range(len(mine)):
                    for k in range(SOME):
                        totals[row, k] += mine[row, k]
            for row in range(len(mine)):
                for k in range(SOME):
                    scale = scales[0, f + k] * steps[r + row]
                    out[r + row, f + k] = np.float32(totals[row, k]) * scale + bias[f + k]
            r += len(mine)


@compiled(void(matrix, codes8, matrix, vector, out2), **PARALLEL)
def int8_rows(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """x @ (codes · scales).T + bias into ``out``: (R, D), (F, D), (2, F) as in `quantize.Matrix`, (F,) → (R, F).

    Sums are exact, however many inputs there are.
    """
    R, D = x.shape
    parts = (len(codes) + OUTPUTS - 1) // OUTPUTS
    levels, steps = np.empty((R, D), np.int16), np.empty(R, np.float32)
    round_rows(x, levels, steps)
    by_bytes = BYTES and D <= LONGEST and (R < ROWS or len(codes) < SOME)
    digits = np.empty((R if by_bytes else 0, 2, D), np.uint8)
    split_rows(levels[: len(digits)], digits)
    if threads_here() == 1:
        for part in range(parts):
            int8_part(part, levels, steps, digits, codes, scales, bias, out)
    else:
        for part in prange(parts):
            int8_part(np.int64(part), levels, steps, digits, codes, scales, bias, out)

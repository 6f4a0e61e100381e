"""int4 matrices times any number of vectors: 8-bit integer products, with a scale and a midpoint for every 32 inputs.

A byte of a panel holds two codes, which are unpacked by a mask and a shift. Products of codes and quantized inputs are
summed exactly, and each group's sum is converted to float32 once. AVX-512 sums them in words of 32 bits, other
processors in halves of words; the bits are the same.
"""

from __future__ import annotations

import numpy as np
from numba import prange, void
from numba.extending import register_jitable

from ...weights.panels import TILE
from .compiled import compiled
from .float32_steps import padded
from .int4_inputs import RECORD, round_groups
from .kernel_types import PARALLEL, SERIAL, codes4, grids, matrix, out2, threads_here, vector
from .panel_passes import ROWS_PER_TASK, lines_to_prefetch, one_thread, put_columns
from .simd import AVX512, LINE_BYTES

if AVX512:
    from .int4_words import STEPS
else:
    from .int4_halves import STEPS

Array = np.ndarray
ROWS_PER_PASS = max(STEPS)  # rows at a time
one_row, two_rows = STEPS[1], STEPS[2]
three_rows, four_rows, five_rows, six_rows = (STEPS.get(rows, two_rows) for rows in (3, 4, 5, 6))


@register_jitable
def int4_rows(n: int, records: Array, codes: Array, scales: Array, bias: Array, out: Array, f: int) -> None:
    """Write the products of all rows with the n-th panel, plus its bias, into TILE columns of ``out`` from f on."""
    R = len(records)
    each = TILE * 4 // LINE_BYTES
    r = 0
    while r < R:
        rows = min(R - r, ROWS_PER_PASS)
        line, last, pace = lines_to_prefetch(r, rows, R, ROWS_PER_PASS, codes.shape[1] * each, each)
        if rows == 1:
            one_row(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 2:
            two_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 3:
            three_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 4:
            four_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 5:
            five_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        else:
            six_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        r += rows


@register_jitable(**SERIAL)
def int4_panel(n: int, records: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Run `int4_panels` for the n-th panel, given what `round_groups` made of the inputs."""
    f, F = n * TILE, out.shape[1]
    if f + TILE <= F:
        int4_rows(n, records, codes, scales, bias[f : f + TILE], out, f)
    else:
        whole = np.empty((len(records), TILE), np.float32)
        int4_rows(n, records, codes, scales, padded(bias[f:]), whole, 0)
        put_columns(whole, out, f)


@compiled(void(matrix, codes4, grids, vector, out2), **PARALLEL)
def int4_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x times int4 weights, plus the bias, into ``out``: (R, D), codes and scales as in `weights.panels` → (R,
    F).
    """
    R = len(x)
    records = np.empty((R, scales.shape[1], RECORD), np.int32)
    if one_thread(R):
        round_groups(x, records)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            a, b = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            round_groups(x[a:b], records[a:b])
    if threads_here() == 1:
        for n in range(len(codes)):
            int4_panel(n, records, codes, scales, bias, out)
    else:
        for n in prange(len(codes)):
            int4_panel(np.int64(n), records, codes, scales, bias, out)

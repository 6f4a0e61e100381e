"""How rows pass over a panel of weights: how many at a time, what each pass prefetches, and when threads are used."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import register_jitable

from .kernel_types import threads_here
from .llvm import Builder, Value
from .simd import LINE_BYTES, prefetch_line

Array = np.ndarray
PARALLEL_ROWS = 24  # rows from which on the small steps are divided among the threads too
ROWS_PER_TASK = 8  # so many at a time
ROWS_PER_PANEL_PASS = 192  # rows that pass over a panel before the next rows do
AHEAD = 12 << 10  # bytes ahead that weights are prefetched, where all rows pass over a panel at once
AHEAD_ONE_ROW = 3 << 10  # the same for a single row, which takes less time for each


@register_jitable
def one_thread(rows: int) -> bool:
    """Tell whether the small steps of so many rows run on one thread: for few rows, the barrier costs more than it
    saves.
    """
    return rows < PARALLEL_ROWS or threads_here() == 1


@register_jitable
def put_columns(whole: Array, out: Array, f: int) -> None:
    """Copy a panel's columns into ``out`` from column f on. The last panel may have more columns than ``out`` has."""
    for r in range(len(out)):
        for k in range(out.shape[1] - f):
            out[r, f + k] = whole[r, k]


@register_jitable
def lines_to_prefetch(r: int, rows: int, R: int, most: int, lines: int, each: int) -> tuple[int, int, int]:
    """Return which cache lines some rows prefetch while they pass over a block: the first, the last, the pace.

    `rows` of R rows, from the r-th on, pass over the block, `most` of them at a time. The block has `lines` cache
    lines, `each` of them for every step of the loop; the pace is how many lines a step prefetches: 1, 2 or 4. Where all
    rows pass at once, they prefetch a fixed distance ahead. Otherwise the block stays in the second-level cache for the
    next rows, and each pass prefetches its share of the block that follows.
    """
    if most >= R:
        return AHEAD // LINE_BYTES, AHEAD // LINE_BYTES + lines, each
    pace = 1 if each * rows <= R else 2 if each * rows <= 2 * R else 4
    return lines + lines * r // R, lines + lines * (r + rows) // R, pace


def prefetch_step(builder: Builder, block: Value, step: Value, first: Value, last: Value, pace: Value) -> None:
    """Emit the instructions by which one step of a loop prefetches `pace` of the lines from `first` to `last`."""
    size = ir.IntType(64)
    line = builder.add(first, builder.mul(step, pace))
    with builder.if_then(builder.icmp_signed("<", line, last)):
        where = builder.bitcast(block, ir.IntType(8).as_pointer())
        where = builder.gep(where, [builder.mul(line, size(LINE_BYTES))])
        prefetch_line(builder, where)
        for more in (2, 4):
            with builder.if_then(builder.icmp_signed(">=", pace, size(more))):
                for other in range(more // 2, more):
                    prefetch_line(builder, builder.gep(where, [size(other * LINE_BYTES)]))

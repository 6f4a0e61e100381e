"""How rows pass a panel of weights: so many at a time, what each pass prefetches meanwhile, and on how many threads."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import register_jitable

from .arithmetic import threads_here
from .llvm import Builder, Value
from .registers import LINE_BYTES, prefetch_line

Array = np.ndarray
MANY, SHARE = 24, 8  # rows from which on the small steps are divided among the threads too, so many at a time
AHEAD = 12 << 10  # how many bytes ahead weights are prefetched where all rows pass at once
ALONE = 3 << 10  # how many where a single row does: it takes less time for each


@register_jitable
def alone(rows: int) -> bool:
    """Whether one thread does the small steps of so many rows: for few, waking the others takes longer."""
    return rows < MANY or threads_here() == 1


@register_jitable
def put_columns(whole: Array, out: Array, f: int) -> None:
    """A panel's columns, as many as ``out`` has from its f-th on: the last panel may have more."""
    for r in range(len(out)):
        for k in range(out.shape[1] - f):
            out[r, f + k] = whole[r, k]


@register_jitable
def lines_to_prefetch(r: int, rows: int, R: int, most: int, lines: int, each: int) -> tuple[int, int, int]:
    """What `rows` of R rows, from the r-th on, prefetch while they pass a block, `most` of them at a time.

    The block has so many cache `lines`, `each` of them for every step of the loop. The result is the first line, the
    last, and the pace: how many lines a step prefetches, 1, 2 or 4. Where all rows pass the block at once, they
    prefetch what lies a little ahead. Otherwise it stays in the second-level cache for the next ones, and each pass
    prefetches its share of the block that follows.
    """
    if most >= R:
        return AHEAD // LINE_BYTES, AHEAD // LINE_BYTES + lines, each
    pace = 1 if each * rows <= R else 2 if each * rows <= 2 * R else 4
    return lines + lines * r // R, lines + lines * (r + rows) // R, pace


def prefetch_step(builder: Builder, block: Value, step: Value, first: Value, last: Value, pace: Value) -> None:
    """The instructions by which one step of a loop prefetches `pace` lines of those from `first` to `last`."""
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

"""Dynamic scheduling: each thread of a parallel loop takes the next piece of the work when it is done with one.

Numba divides a parallel loop evenly beforehand. Where another program holds a core for some milliseconds, all other
threads then wait for the one that shares it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from .dot_products import INDEX
from .llvm import Builder, Context, Signature, Value, Values
from .simd import address, emits

Array = np.ndarray


def next_piece(taken: Array) -> int:
    """Return how many pieces were taken before, ``taken[0]``, and count one more, as one atomic operation."""
    taken[0] += 1
    return int(taken[0]) - 1


@emits(next_piece, lambda taken: types.int64)
def _next_piece(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    where = address(context, builder, signature.args[0], arguments[0], INDEX(0))
    return builder.atomic_rmw("add", where, ir.Constant(ir.IntType(64), 1), "monotonic")

"""Dot products of queries and keys, and the sums of layer norm.

Each dot product, its loop included, is emitted as instructions. Each lane of a vector sums every LANES-th product, and
the lanes are added in pairs at the end.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, accumulate, address, emits, horizontal_sum, load, multiply_add, shuffle

Array = np.ndarray

INDEX = ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)


def dot(x: Array, r: int, y: Array, s: int, start: int, end: int) -> float:
    """Return the float32 dot product of ``x[r]`` and ``y[s]`` over the entries from `start` to `end`."""
    return x[r, start:end] @ y[s, start:end]


@emits(dot, lambda x, r, y, s, start, end: types.float32)
def _dot(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    x, r, y, s, start, end = arguments
    sides = [
        address(context, builder, signature.args[k], array, row, INDEX(0)) for k, array, row in ((0, x, r), (2, y, s))
    ]

    def add(d: Value, sums: list[Value]) -> list[Value]:
        left, right = (load(builder, builder.gep(side, [d]), sums[0].type) for side in sides)
        return [multiply_add(builder, left, right, sums[0])]

    whole = builder.sub(end, builder.srem(builder.sub(end, start), INDEX(LANES)))
    (lanes,) = accumulate(builder, [ir.Constant(FLOATS, None)], start, whole, INDEX(LANES), add)
    return accumulate(builder, [horizontal_sum(builder, lanes)], whole, end, INDEX(1), add)[0]


def multiply_add_pairs(builder: Builder, a: Value, b: Value, sums: Value) -> Value:
    """Multiply 16-bit integers and add neighbouring products in 32 bits, as vpmaddwd does in one instruction."""
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    both = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (shuffle(builder, both, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))

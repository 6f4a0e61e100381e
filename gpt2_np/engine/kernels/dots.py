"""Dot products: of queries and keys, and the sums of layer norm.

Each product is one step, loops and all, in instructions. The inputs go into the lanes of PAIR vectors of sums in turn,
which are added up across the lanes in the end: a few rows and others at a time have their sums in registers. A dot
product's terms are added in the same order however many others are computed with it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from .llvm import Builder, Context, Kinds, Signature, Value, Values
from .registers import LANES, WIDE, across, address, choose, emits, further, load, multiply_add, summing

Array = np.ndarray
PAIR = 2  # vectors of inputs at a time, each into sums of its own: they needn't wait for each other
ROWS, SOME = 4 if WIDE else 2, 3  # of so many rows and others the sums find room in registers

INDEX = ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)


def dot(x: Array, r: int, y: Array, s: int, start: int, end: int) -> float:
    """``x[r]`` times ``y[s]``, both float32: the sum over the entries from `start` to `end`."""
    return products(x[r : r + 1], y[s : s + 1], start, end)[0, 0]


def dots(x: Array, r: int, y: Array, s: int, start: int, end: int, totals: Array) -> None:
    """ROWS rows of x, from the r-th on, times SOME of y, from the s-th on, into ``totals`` (ROWS, SOME)."""
    totals[:] = products(x[r : r + ROWS], y[s : s + SOME], start, end)


def products(x: Array, y: Array, start: int, end: int) -> Array:
    """The sums over the entries from `start` to `end`, by lanes: of every PAIR vectors, and of what is left over."""
    whole = end - (end - start) % (PAIR * LANES)
    x, y = x[:, None], y[None]
    lanes = (x[..., start:whole] * y[..., start:whole]).reshape(x.shape[0], y.shape[1], -1, PAIR, LANES)
    return lanes.sum(axis=2).sum(axis=(2, 3)) + (x[..., whole:end] * y[..., whole:end]).sum(axis=-1)


@emits(dot, lambda x, r, y, s, start, end: types.float32)
def _dot(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    *place, start, end = arguments
    return _products(context, builder, signature.args[:4], place, start, end, 1, 1)[0]


@emits(dots, lambda x, r, y, s, start, end, totals: types.void)
def _dots(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    *place, start, end, totals = arguments
    for n, one in enumerate(_products(context, builder, signature.args[:4], place, start, end, ROWS, SOME)):
        where = address(context, builder, signature.args[6], totals, INDEX(n // SOME), INDEX(n % SOME))
        builder.store(one, where)
    return context.get_dummy_value()


def _products(
    context: Context, builder: Builder, kinds: Kinds, place: Values, start: Value, end: Value, rows: int, others: int
) -> list[Value]:
    """The instructions of `products`."""
    (of_x, _, of_y, _), (x, r, y, s) = kinds, place
    left = [address(context, builder, of_x, x, further(builder, r, row), INDEX(0)) for row in range(rows)]
    right = [address(context, builder, of_y, y, further(builder, s, k), INDEX(0)) for k in range(others)]

    def add_pair(d: Value, sums: list[Value]) -> list[Value]:
        sums = list(sums)
        for v in range(PAIR):
            weights = [load(builder, builder.gep(one, [d]), FLOATS, v * LANES) for one in right]
            for row, where in enumerate(left):
                mine = load(builder, builder.gep(where, [d]), FLOATS, v * LANES)
                for k, weight in enumerate(weights):
                    n = (row * others + k) * PAIR + v
                    sums[n] = multiply_add(builder, mine, weight, sums[n])
        return sums

    def add_one(d: Value, sums: list[Value]) -> list[Value]:
        one, other = ([builder.load(builder.gep(where, [d])) for where in side] for side in (left, right))
        return [multiply_add(builder, one[n // others], other[n % others], total) for n, total in enumerate(sums)]

    width = INDEX(PAIR * LANES)
    whole = builder.sub(end, builder.srem(builder.sub(end, start), width))
    zeros = [ir.Constant(FLOATS, None)] * (rows * others * PAIR)
    sums = summing(builder, zeros, start, whole, width, add_pair)
    both = [builder.fadd(a, b) for a, b in zip(sums[::PAIR], sums[1::PAIR], strict=True)]
    return summing(builder, across(builder, both), whole, end, INDEX(1), add_one)


def add_neighbours(builder: Builder, a: Value, b: Value, sums: Value) -> Value:
    """As the processor has it in one instruction: products of 16 bits, of which neighbours are added, in 32 bits."""
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    both = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (choose(builder, both, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))

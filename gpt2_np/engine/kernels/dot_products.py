"""Dot products of queries and keys, and the sums of layer norm.

Each dot product, loops included, is emitted as instructions. Inputs are accumulated into PAIR vectors in turn, and the
lanes are summed at the end. A block of rows and columns keeps its sums in registers. The terms of a dot product are
added in the same order whatever is computed beside it, which makes attention batch-invariant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types

from .llvm import Builder, Context, Kinds, Signature, Value, Values
from .simd import (
    AVX512,
    LANES,
    accumulate,
    address,
    broadcast,
    emits,
    horizontal_sums,
    horizontal_vectors,
    index_after,
    load,
    multiply_add,
    shuffle,
    store,
)

Array = np.ndarray
PAIR = 2  # independent accumulators: consecutive multiply-adds don't wait for each other
BLOCK_ROWS, BLOCK_COLUMNS = 4 if AVX512 else 2, 3  # the sums of a block fit in the registers

INDEX = ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)


def dot(x: Array, r: int, y: Array, s: int, start: int, end: int) -> float:
    """Return the float32 dot product of ``x[r]`` and ``y[s]`` over the entries from `start` to `end`."""
    return products(x[r : r + 1], y[s : s + 1], start, end)[0, 0]


def dot_block(x: Array, r: int, y: Array, s: int, start: int, end: int, scale: float, out: Array) -> None:
    """Write `scale` times the dot products of BLOCK_ROWS rows of x (from r on) and BLOCK_COLUMNS rows of y (from s on)
    into ``out``, in y's columns: from s on. What is in each row's next column, which must be there, is lost.
    """
    out[:BLOCK_ROWS, s : s + BLOCK_COLUMNS] = products(x[r : r + BLOCK_ROWS], y[s : s + BLOCK_COLUMNS], start, end)
    out[:BLOCK_ROWS, s : s + BLOCK_COLUMNS] *= np.float32(scale)


def products(x: Array, y: Array, start: int, end: int) -> Array:
    """Return all dot products over the entries from `start` to `end`, summed lane by lane as the kernel sums them."""
    whole = end - (end - start) % (PAIR * LANES)
    x, y = x[:, None], y[None]
    lanes = (x[..., start:whole] * y[..., start:whole]).reshape(x.shape[0], y.shape[1], -1, PAIR, LANES)
    return lanes.sum(axis=2).sum(axis=(2, 3)) + (x[..., whole:end] * y[..., whole:end]).sum(axis=-1)


@emits(dot, lambda x, r, y, s, start, end: types.float32)
def _dot(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    *place, start, end = arguments
    whole, lanes, add_one = _products(context, builder, signature.args[:4], place, start, end, 1, 1)
    return accumulate(builder, horizontal_sums(builder, lanes), whole, end, INDEX(1), add_one)[0]


@emits(dot_block, lambda x, r, y, s, start, end, scale, out: types.void)
def _dot_block(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    *place, start, end, scale, out = arguments
    rows, others = BLOCK_ROWS, BLOCK_COLUMNS
    whole, lanes, add_one = _products(context, builder, signature.args[:4], place, start, end, rows, others)
    (totals,) = horizontal_vectors(builder, lanes)
    places = [address(context, builder, signature.args[7], out, INDEX(row), place[3]) for row in range(rows)]
    with builder.if_else(builder.icmp_signed("==", whole, end)) as (without_rest, with_rest):
        with without_rest:  # The totals stay in their vector: one store writes a row's, and one lane more.
            scaled = builder.fmul(totals, broadcast(builder, scale, FLOATS))
            for row, where in enumerate(places):
                mine = [min(row * others + k, rows * others - 1) for k in range(others + 1)]
                store(builder, shuffle(builder, scaled, mine), where)
        with with_rest:
            each = [builder.extract_element(totals, ir.IntType(32)(n)) for n in range(rows * others)]
            for n, one in enumerate(accumulate(builder, each, whole, end, INDEX(1), add_one)):
                where = builder.gep(places[n // others], [INDEX(n % others)])
                builder.store(builder.fmul(one, scale), where)
    return context.get_dummy_value()


def _products(
    context: Context, builder: Builder, kinds: Kinds, place: Values, start: Value, end: Value, rows: int, others: int
) -> tuple[Value, list[Value], Callable[[Value, list[Value]], list[Value]]]:
    """Emit the instructions of `products` up to the lanes' sums: where whole vectors end, a vector for each dot product
    whose lanes are to be summed, and what adds one more entry to all of these sums.
    """
    (of_x, _, of_y, _), (x, r, y, s) = kinds, place
    left = [address(context, builder, of_x, x, index_after(builder, r, row), INDEX(0)) for row in range(rows)]
    right = [address(context, builder, of_y, y, index_after(builder, s, k), INDEX(0)) for k in range(others)]

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
    sums = accumulate(builder, zeros, start, whole, width, add_pair)
    return whole, [builder.fadd(a, b) for a, b in zip(sums[::PAIR], sums[1::PAIR], strict=True)], add_one


def multiply_add_pairs(builder: Builder, a: Value, b: Value, sums: Value) -> Value:
    """Multiply 16-bit integers and add neighbouring products in 32 bits, as vpmaddwd does in one instruction."""
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    both = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (shuffle(builder, both, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))

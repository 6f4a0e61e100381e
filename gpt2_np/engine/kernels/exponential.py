"""The exponential in all lanes of a vector, and what uses it: softmax's terms and GPT-2's GELU.

Each number gets the same bits in a vector as it does alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import register_jitable

from ...model import ops
from .dot_products import FLOATS, INDEX, WORDS
from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, accumulate, address, broadcast, emits, horizontal_sum, load, multiply_add, store

Array = np.ndarray
FLOAT, WORD = ir.FloatType(), ir.IntType(32)
# Cephes' expf (Moshier 1992): within 2 units in the last place.
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
CHUNK = 4096  # exponentials of a row per partial sum in float32; the partial sums are added in float64
LOWEST, HIGHEST = -87.0, 88.0
ROUNDER = 12582912.0  # 1.5 · 2²³: a float32 of this size has no fraction


def exp_instructions(builder: Builder, x: Value) -> Value:
    """Emit e^x for a float32 number or a vector of them; NaN stays NaN."""
    kind = x.type
    integers = WORDS if isinstance(kind, ir.VectorType) else WORD

    def every(number: float, of: ir.Type = kind) -> Value:
        return of([of.element(number)] * of.count) if isinstance(of, ir.VectorType) else of(number)

    x = builder.select(builder.fcmp_ordered("<", x, every(LOWEST)), every(LOWEST), x)
    x = builder.select(builder.fcmp_ordered(">", x, every(HIGHEST)), every(HIGHEST), x)
    # The nearest integer power of two.
    n = builder.fsub(multiply_add(builder, x, every(_float32(1.44269504)), every(ROUNDER)), every(ROUNDER))
    r = multiply_add(builder, n, every(_float32(-0.693359375)), x)
    r = multiply_add(builder, n, every(_float32(2.12194440e-4)), r)
    p = every(_float32(POLYNOMIAL[0]))
    for coefficient in POLYNOMIAL[1:]:
        p = multiply_add(builder, p, r, every(_float32(coefficient)))
    p = builder.fadd(multiply_add(builder, builder.fmul(p, r), r, r), every(1.0))
    power = builder.add(builder.fptosi(n, integers), every(127, integers))
    return builder.fmul(p, builder.bitcast(builder.shl(power, every(23, integers)), kind))


def exp(x: float) -> float:
    """Return e^x in float32."""
    return np.exp(np.float32(x))


@emits(exp, lambda x: types.float32)
def _exp(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    return exp_instructions(builder, arguments[0])


def _float32(number: float) -> float:
    return float(np.float32(number))


def _along_row(
    context: Context,
    builder: Builder,
    of_rows: types.Array,
    rows: Value,
    r: Value,
    count: Value,
    start: list[Value],
    step: Callable[[Value, ir.Type, list[Value]], list[Value]],
    join: Callable[[list[Value]], list[Value]],
) -> list[Value]:
    """Emit a loop over the first `count` numbers of a row: ``step(address, type, state)``, first on vectors, then on
    numbers.

    ``start`` is the vectors' initial state; ``join`` turns it into the state of single numbers.
    """
    row = address(context, builder, of_rows, rows, r, INDEX(0))
    whole = builder.sub(count, builder.srem(count, INDEX(LANES)))

    def along(kind: ir.Type) -> Callable[[Value, list[Value]], list[Value]]:
        return lambda d, state: step(builder.gep(row, [d]), kind, state)

    state = accumulate(builder, start, INDEX(0), whole, INDEX(LANES), along(FLOATS))
    return accumulate(builder, join(state), whole, count, INDEX(1), along(FLOAT))


def largest(rows: Array, r: int, count: int) -> float:
    """Return the largest of a row's first `count` numbers."""
    return rows[r, :count].max()


@emits(largest, lambda rows, r, count: types.float32)
def _largest(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    rows, r, count = arguments

    def larger(a: Value, b: Value) -> Value:
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    def step(place: Value, kind: ir.Type, state: list[Value]) -> list[Value]:
        return [larger(load(builder, place, kind), state[0])]

    def join(state: list[Value]) -> list[Value]:
        lanes = [builder.extract_element(state[0], WORD(lane)) for lane in range(LANES)]
        while len(lanes) > 1:
            lanes = [larger(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes

    start = [FLOATS([FLOAT(float("-inf"))] * LANES)]
    return _along_row(context, builder, signature.args[0], rows, r, count, start, step, join)[0]


def exp_and_sum(rows: Array, r: int, count: int, best: float, out: Array, o: int) -> float:
    """Write e^(number − best) of a row's first `count` numbers into the o-th row of ``out``, which may be the same one;
    their sum.

    Each lane sums every LANES-th number, and the lanes are added in pairs.
    """
    out[o, :count] = np.exp(rows[r, :count] - best)
    return out[o, :count].sum()


@emits(exp_and_sum, lambda rows, r, count, best, out, o: types.float32)
def _exp_and_sum(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    rows, r, count, best, out, o = arguments
    row = address(context, builder, signature.args[0], rows, r, INDEX(0))
    there = address(context, builder, signature.args[4], out, o, INDEX(0))
    whole = builder.sub(count, builder.srem(count, INDEX(LANES)))

    def exp_of(d: Value, kind: ir.Type) -> Value:
        shift = broadcast(builder, best, FLOATS) if kind is FLOATS else best
        one = exp_instructions(builder, builder.fsub(load(builder, builder.gep(row, [d]), kind), shift))
        store(builder, one, builder.gep(there, [d]))
        return one

    def add(d: Value, sums: list[Value]) -> list[Value]:
        return [builder.fadd(sums[0], exp_of(d, FLOATS))]

    lanes = cgutils.alloca_once_value(
        builder, accumulate(builder, [ir.Constant(FLOATS, None)], INDEX(0), whole, INDEX(LANES), add)[0]
    )
    first = builder.bitcast(lanes, FLOAT.as_pointer())
    with cgutils.for_range_slice(builder, whole, count, INDEX(1), inc=True) as (d, _):
        lane = builder.gep(first, [builder.sub(d, whole)])
        builder.store(builder.fadd(builder.load(lane), exp_of(d, FLOAT)), lane)
    return horizontal_sum(builder, builder.load(lanes))


@register_jitable
def exp_and_sum_all(rows: Array, r: int, best: float, out: Array, o: int) -> float:
    """Compute `exp_and_sum` of a whole row, whose sum is in float64, CHUNK numbers at a time."""
    total, V = 0.0, rows.shape[1]
    for first in range(0, V, CHUNK):
        count = min(V, first + CHUNK) - first
        total += exp_and_sum(rows[:, first:], r, count, best, out[:, first:], o)
    return total


def gelu_row(x: Array, r: int, out: Array) -> None:
    """Write GPT-2's GELU of a row into the same row of ``out``, which may be x: x·½(1 + tanh u) is x·σ(2u)."""
    out[r] = ops.gelu_new(x[r])


@emits(gelu_row, lambda x, r, out: types.void)
def _gelu_row(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    x, r, out = arguments
    row = address(context, builder, signature.args[2], out, r, INDEX(0))
    first = address(context, builder, signature.args[0], x, r, INDEX(0))
    count = builder.extract_value(context.make_array(signature.args[0])(context, builder, x).shape, 1)

    def step(place: Value, kind: ir.Type, state: list[Value]) -> list[Value]:
        def every(number: float) -> Value:
            one = FLOAT(_float32(number))
            return FLOATS([one] * LANES) if kind is FLOATS else one

        u = load(builder, place, kind)
        cube = builder.fmul(builder.fmul(builder.fmul(every(0.044715), u), u), u)
        inner = builder.fmul(every(-1.5957691216), builder.fadd(u, cube))
        one = builder.fdiv(u, builder.fadd(every(1.0), exp_instructions(builder, inner)))
        offset = builder.sub(builder.ptrtoint(place, INDEX), builder.ptrtoint(first, INDEX))
        there = builder.inttoptr(builder.add(builder.ptrtoint(row, INDEX), offset), place.type)
        store(builder, one, there)
        return state

    _along_row(context, builder, signature.args[0], x, r, count, [], step, lambda state: state)
    return context.get_dummy_value()

"""Matrices whose outputs lie down, one in each row of memory: dot products.

The weights may be float32, bfloat16 (its bits), or whole numbers of 8 bits, which are multiplied with whole numbers of
16. A row of inputs that is alone passes the weights as they lie, output by output, or where it is too long for the
first-level cache, some outputs together. Several rows share the weights: a few rows and outputs at a time have their
sums in registers. Each product is one step, loops and all, in instructions: what little there is to do between two
outputs' weights decides how far the processor runs ahead of those that it waits for, and so how fast memory is read. A
row's sums are added up in the same order in any company.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import register_jitable

from .arithmetic import threads_here, widen
from .llvm import Builder, Context, Kinds, Signature, Value, Values
from .registers import (
    LANES,
    LINE,
    WIDE,
    across,
    adding,
    address,
    ask_for,
    choose,
    emits,
    further,
    load,
    load_upper_halves,
    multiply_add,
    summing,
)

Array = np.ndarray
PAIR = 2  # vectors of an output's weights at a time, each into sums of its own: they needn't wait for each other
ROWS, SOME = 4 if WIDE else 2, 3  # of so many rows and outputs the sums find room in registers
FURTHER = 6 << 10  # how many bytes ahead few rows ask memory for weights
LESS_FAR = 4 << 10  # how many a row alone does where they are float32
AHEAD = 5 * SOME  # how many outputs ahead several rows do
LONG = 10 << 10  # from so many bytes of an output's weights on, a row's inputs are pushed out of the first-level cache
NEAR = 2 << 10  # how many bytes ahead memory is asked for the outputs that share the inputs of such a row
OUTPUTS = 30  # that a thread takes at a time

INDEX = ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
HALVES, QUARTERS = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(8), 2 * LANES)


def inputs(codes: Array | types.Array) -> int:
    """How many inputs a vector of sums takes at a time: two a lane where weights are whole numbers."""
    return 2 * LANES if codes.dtype in (types.int8, np.int8) else LANES


def dtype_of_sums(codes: types.Array) -> types.Number:
    """What products of these weights, of a Numba array type, are added up in."""
    return types.int32 if codes.dtype == types.int8 else types.float32


def dot(x: Array, r: int, codes: Array, f: int, start: int, end: int) -> float:
    """One row of inputs times one output, ``codes[f]``: the sum over the inputs from `start` to `end`."""
    return products(x[r : r + 1], codes[f : f + 1], start, end)[0, 0]


def dot_in_turn(x: Array, r: int, codes: Array, f: int, start: int, end: int) -> float:
    """As `dot`, where other rows take their turn with the same output: memory is asked for all of its lines.

    A row alone asks for a line of two at most: the processor, running ahead, brings the other by itself.
    """
    return dot(x, r, codes, f, start, end)


def dot_near(x: Array, r: int, codes: Array, f: int, start: int, end: int) -> float:
    """As `dot`, where the weights are near already, or someone else asks for them."""
    return dot(x, r, codes, f, start, end)


@register_jitable
def together(codes: Array | np.dtype) -> int:
    """How many outputs of a long row are computed together, each input being loaded once for all of them."""
    return 4 if codes.itemsize == 4 else 6


def dots_together(x: Array, r: int, codes: Array, f: int, start: int, end: int, totals: Array) -> None:
    """One row of inputs times `together` outputs, from the f-th on, into ``totals``."""
    totals[:] = products(x[r : r + 1], codes[f : f + together(codes)], start, end)[0]


def dots_of_row(x: Array, r: int, codes: Array, f: int, start: int, end: int, totals: Array) -> None:
    """One row of inputs times SOME outputs, from the f-th on, into ``totals`` (1, SOME)."""
    totals[:] = products(x[r : r + 1], codes[f : f + SOME], start, end)


def dots_of_rows(x: Array, r: int, codes: Array, f: int, start: int, end: int, totals: Array) -> None:
    """ROWS rows, from the r-th on, times SOME outputs, into ``totals`` (ROWS, SOME)."""
    totals[:] = products(x[r : r + ROWS], codes[f : f + SOME], start, end)


def products(x: Array, codes: Array, start: int, end: int) -> Array:
    """The sums over the inputs from `start` to `end`, by lanes: of every PAIR vectors, and of what is left over."""
    whole = end - (end - start) % (PAIR * inputs(codes))
    x, weights = x[:, None], widen(codes)[None]
    if codes.dtype == np.int8:
        return (x[..., start:end].astype(np.int32) * weights[..., start:end]).sum(axis=-1, dtype=np.int32)
    lanes = (x[..., start:whole] * weights[..., start:whole]).reshape(len(x), len(codes), -1, PAIR, LANES)
    return lanes.sum(axis=2).sum(axis=(2, 3)) + (x[..., whole:end] * weights[..., whole:end]).sum(axis=-1)


def _alone(lines: int, for_floats: int = FURTHER) -> Callable[..., Value]:
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        *place, start, end = arguments
        of_codes, (_, _, codes, f) = signature.args[2], place
        bits = of_codes.dtype.bitwidth
        bytes_ahead = for_floats if bits == 32 else FURTHER

        def ask(d: Value) -> None:
            ahead = address(context, builder, of_codes, codes, f, further(builder, d, 8 * bytes_ahead // bits))
            ask_for(builder, ahead, min(lines * LINE, PAIR * inputs(of_codes) * bits // 32))

        return _products(context, builder, signature.args[:4], place, start, end, 1, 1, ask)[0]

    return emit


emits(dot, lambda x, r, codes, f, start, end: dtype_of_sums(codes))(_alone(1, LESS_FAR))
emits(dot_in_turn, lambda x, r, codes, f, start, end: dtype_of_sums(codes))(_alone(PAIR))
emits(dot_near, lambda x, r, codes, f, start, end: dtype_of_sums(codes))(_alone(0))


@emits(dots_together, lambda x, r, codes, f, start, end, totals: types.void)
def _dots_together(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    *place, start, end, totals = arguments
    of_codes, (_, _, codes, f) = signature.args[2], place
    bits, outputs = of_codes.dtype.bitwidth, together(np.dtype(str(of_codes.dtype)))

    def ask(d: Value) -> None:
        for k in range(outputs):
            ahead = further(builder, d, 8 * NEAR // bits)
            where = address(context, builder, of_codes, codes, further(builder, f, k), ahead)
            ask_for(builder, where, PAIR * inputs(of_codes) * bits // 32)

    for n, one in enumerate(_products(context, builder, signature.args[:4], place, start, end, 1, outputs, ask)):
        builder.store(one, address(context, builder, signature.args[-1], totals, INDEX(n)))
    return context.get_dummy_value()


def _into_totals(rows: int) -> Callable[..., Value]:
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        x, r, codes, f, start, end, totals = arguments
        of_x, _, of_codes, *_, of_totals = signature.args
        count = [
            builder.extract_value(context.make_array(kind)(context, builder, array).shape, 0)
            for kind, array in ((of_x, x), (of_codes, codes))
        ]
        last = builder.sub(count[1], INDEX(SOME))
        ahead = further(builder, f, AHEAD)
        ahead = builder.select(builder.icmp_signed("<", ahead, last), ahead, last)
        # Each rows' turn asks for its share of weights, so that memory is busy while they compute.
        turns = [
            builder.add(start, builder.sdiv(builder.mul(builder.sub(end, start), row), count[0]))
            for row in (r, further(builder, r, rows))
        ]

        def ask(d: Value) -> None:
            mine = builder.and_(builder.icmp_signed(">=", d, turns[0]), builder.icmp_signed("<", d, turns[1]))
            with builder.if_then(mine):
                for k in range(SOME):
                    where = address(context, builder, of_codes, codes, further(builder, ahead, k), d)
                    ask_for(builder, where, PAIR * inputs(of_codes) * of_codes.dtype.bitwidth // 32)

        sums = _products(context, builder, signature.args[:4], (x, r, codes, f), start, end, rows, SOME, ask)
        for n, one in enumerate(sums):
            where = address(context, builder, of_totals, totals, INDEX(n // SOME), INDEX(n % SOME))
            builder.store(one, where)
        return context.get_dummy_value()

    return emit


emits(dots_of_row, lambda x, r, codes, f, start, end, totals: types.void)(_into_totals(1))
emits(dots_of_rows, lambda x, r, codes, f, start, end, totals: types.void)(_into_totals(ROWS))


def _products(
    context: Context,
    builder: Builder,
    kinds: Kinds,
    place: Value,
    start: Value,
    end: Value,
    rows: int,
    outputs: int,
    ask: Callable[[Value], None],
) -> list[Value]:
    """The instructions of `products`; `ask` emits what memory is asked for meanwhile."""
    (of_x, _, of_codes, _), (x, r, codes, f) = kinds, place
    loads: dict[types.Type, Callable[[Builder, Value], Value]]
    loads = {types.float32: _floats, types.uint16: load_upper_halves, types.int8: _whole_numbers}
    prepare = loads[of_codes.dtype]
    add, vector = (_add_neighbours, WORDS) if of_codes.dtype == types.int8 else (multiply_add, FLOATS)

    def at(of: types.Array, array: Value, first: Value, n: int, d: Value) -> Value:
        return address(context, builder, of, array, further(builder, first, n), d)

    def add_pair(d: Value, sums: list[Value]) -> list[Value]:
        ask(d)
        sums = list(sums)
        for v in range(PAIR):
            here = further(builder, d, v * inputs(of_codes))
            weights = [prepare(builder, at(of_codes, codes, f, k, here)) for k in range(outputs)]
            for row in range(rows):
                mine = load(builder, at(of_x, x, r, row, here), weights[0].type)
                for k, weight in enumerate(weights):
                    n = (row * outputs + k) * PAIR + v
                    sums[n] = add(builder, mine, weight, sums[n])
        return sums

    def add_one(d: Value, sums: list[Value]) -> list[Value]:
        weights = [_number(builder, of_codes, builder.load(at(of_codes, codes, f, k, d))) for k in range(outputs)]
        numbers = [_number(builder, of_codes, builder.load(at(of_x, x, r, row, d))) for row in range(rows)]
        add = _add_number if of_codes.dtype == types.int8 else multiply_add
        return [add(builder, numbers[n // outputs], weights[n % outputs], one) for n, one in enumerate(sums)]

    width = end.type(PAIR * inputs(of_codes))
    whole = builder.sub(end, builder.srem(builder.sub(end, start), width))
    sums = summing(builder, [ir.Constant(vector, None)] * (rows * outputs * PAIR), start, whole, width, add_pair)
    both = [adding(builder, vector)(a, b) for a, b in zip(sums[::PAIR], sums[1::PAIR], strict=True)]
    return summing(builder, across(builder, both), whole, end, end.type(1), add_one)


def _floats(builder: Builder, where: Value) -> Value:
    return load(builder, where, FLOATS)


def _whole_numbers(builder: Builder, where: Value) -> Value:
    return builder.sext(load(builder, where, QUARTERS), HALVES)


def _add_neighbours(builder: Builder, a: Value, b: Value, sums: Value) -> Value:
    """As the processor has it in one instruction: products of 16 bits, of which neighbours are added, in 32 bits."""
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    both = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (choose(builder, both, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))


def _add_number(builder: Builder, a: Value, b: Value, total: Value) -> Value:
    return builder.add(total, builder.mul(a, b))


def _number(builder: Builder, of_codes: types.Array, one: Value) -> Value:
    """A weight, or an input, as what it is multiplied as."""
    if of_codes.dtype == types.int8:
        return builder.sext(one, ir.IntType(32))
    if isinstance(one.type, ir.IntType):
        bits = builder.zext(one, ir.IntType(32))
        return builder.bitcast(builder.shl(bits, bits.type(16)), ir.FloatType())
    return one


@register_jitable
def share(part: int, F: int) -> tuple[int, int]:
    """From which of F outputs to which one part goes."""
    return part * OUTPUTS, min(F, (part + 1) * OUTPUTS)


def dot_rows(x: Array, codes: Array, bias: Array, out: Array) -> None:
    """x @ weights.T + bias into ``out``: (R, D), (F, D) float32 or bfloat16, (F,) → (R, F). To be compiled."""
    parts = (len(codes) + OUTPUTS - 1) // OUTPUTS
    if threads_here() == 1:
        for part in range(parts):
            dot_rows_part(part, x, codes, bias, out)
    else:
        for part in prange(parts):
            dot_rows_part(np.int64(part), x, codes, bias, out)


@register_jitable
def dot_rows_part(part: int, x: Array, codes: Array, bias: Array, out: Array) -> None:
    """`dot_rows` for OUTPUTS outputs."""
    R, D = x.shape
    F = len(codes)
    first, last = share(part, F)
    if R < ROWS or F < SOME:
        group = together(codes) if R == 1 and D * codes.itemsize >= LONG else 1
        grouped = last - (last - first) % group if group > 1 else first
        for f in range(first, grouped, group):
            dots_together(x, 0, codes, f, 0, D, out[0, f : f + group])
            for k in range(f, f + group):
                out[0, k] += bias[k]
        for f in range(grouped, last):
            if R == 1:
                out[0, f] = dot(x, 0, codes, f, 0, D) + bias[f]
                continue
            for r in range(R):
                out[r, f] = dot_in_turn(x, r, codes, f, 0, D) + bias[f]
        return
    totals = np.empty((ROWS, SOME), np.float32)
    for some in range(first, last, SOME):
        f = min(some, F - SOME)  # the last ones overlap others, which get the same sums once more
        r = 0
        while r < R:
            mine = totals
            if r + ROWS <= R:
                dots_of_rows(x, r, codes, f, 0, D, mine)
            else:
                mine = totals[:1]
                dots_of_row(x, r, codes, f, 0, D, mine)
            for row in range(len(mine)):
                for k in range(SOME):
                    out[r + row, f + k] = mine[row, k] + bias[f + k]
            r += len(mine)

"""Matrices whose outputs lie down, one in each row of memory: dot products, some outputs at a time.

The weights may be float32, bfloat16 (its bits), or whole numbers of 8 bits, which are multiplied with whole numbers of
16. Some outputs share each vector of inputs that is loaded, some rows of inputs share each vector of weights, and
memory is asked for the outputs further on. A row that is alone passes the weights as they lie, output by output:
the processor finds out by itself what comes next. A row's sums are added up in the same order in any company.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import register_jitable

from .arithmetic import widen
from .registers import (
    LANES,
    WIDE,
    Registers,
    address,
    ask_for,
    choose,
    emits,
    further,
    load,
    load_upper_halves,
    multiply_add,
    store,
)

Array = np.ndarray
FOUR = 4
TOGETHER = 4 if WIDE else 2  # rows whose sums find room in registers, four outputs of each
ALONE = 1 if WIDE else 4  # outputs of a row that has them to itself: one's sum would be waited for in short vectors
AHEAD = 4 * FOUR  # outputs ahead that memory is asked for
OUTPUTS = 32  # that a thread takes at a time

SHAPES = {rows * outputs: (rows, outputs) for rows, outputs in ((1, ALONE), (1, FOUR), (TOGETHER, FOUR))}
SUMS = {(dtype, *shape): Registers(dtype, count) for dtype in (types.float32, types.int32)
        for count, shape in SHAPES.items()}  # fmt: skip
INDEX = ir.IntType(64)
HALVES, BYTES = ir.VectorType(ir.IntType(16), 2 * LANES), ir.VectorType(ir.IntType(8), 2 * LANES)


def dtype_of_sums(codes: Any) -> Any:
    """What products of these weights, of a Numba array type, are added up in."""
    return types.int32 if codes.dtype == types.int8 else types.float32


def step(codes: Array) -> int:
    """How many inputs `add_products` takes at a time: two a lane where weights are whole numbers."""
    return 2 * LANES if codes.dtype == np.int8 else LANES


@emits(step, lambda codes: types.int64)
def _step(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return INDEX(2 * LANES if signature.args[0].dtype == types.int8 else LANES)


def no_sums(codes: Array) -> Any:
    """Sums of four outputs for one row of inputs, each LANES of them: zeros."""
    return np.zeros((1, FOUR, LANES), np.int32 if codes.dtype == np.int8 else np.float32)


def no_sums_of_rows(codes: Array) -> Any:
    """Such sums for TOGETHER rows."""
    return np.zeros((TOGETHER, FOUR, LANES), np.int32 if codes.dtype == np.int8 else np.float32)


def no_sums_alone(codes: Array) -> Any:
    """Such sums of ALONE outputs for one row."""
    return np.zeros((1, ALONE, LANES), np.int32 if codes.dtype == np.int8 else np.float32)


@emits(no_sums, lambda codes: SUMS[dtype_of_sums(codes), 1, FOUR])
@emits(no_sums_of_rows, lambda codes: SUMS[dtype_of_sums(codes), TOGETHER, FOUR])
@emits(no_sums_alone, lambda codes: SUMS[dtype_of_sums(codes), 1, ALONE])
def _no_sums(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return signature.return_type.array(None)


def add_products(sums: Any, x: Array, r: int, codes: Array, f: int, d: int) -> Any:
    """Add the next inputs of each row, ``x[r:, d:]``, times those of some outputs, ``codes[f:, d:]``, lane by lane."""
    inputs = x[r : r + len(sums), None, d : d + step(codes)]
    weights = widen(codes[f : f + sums.shape[1], d : d + step(codes)])
    if codes.dtype == np.int8:
        return sums + (weights * inputs.astype(np.int32)).reshape(*sums.shape, 2).sum(axis=-1, dtype=np.int32)
    return sums + inputs * weights


@emits(add_products, lambda sums, x, r, codes, f, d: sums)
def _add_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, x, r, codes, f, d = arguments
    prepare = {types.float32: _floats, types.uint16: load_upper_halves, types.int8: _whole_numbers}
    rows, outputs = SHAPES[sums.type.count]
    weights = [prepare[signature.args[3].dtype](
                   builder, address(context, builder, signature.args[3], codes, further(builder, f, k), d)
               ) for k in range(outputs)]  # fmt: skip
    for row in range(rows):
        where = address(context, builder, signature.args[1], x, further(builder, r, row), d)
        inputs = load(builder, where, weights[0].type)
        for k in range(outputs):
            mine = builder.extract_value(sums, row * outputs + k)
            add = _add_pairs if weights[0].type == HALVES else multiply_add
            sums = builder.insert_value(sums, add(builder, inputs, weights[k], mine), row * outputs + k)
    return sums


def _floats(builder: Any, where: Any) -> Any:
    return load(builder, where, ir.VectorType(ir.FloatType(), LANES))


def _whole_numbers(builder: Any, where: Any) -> Any:
    return builder.sext(load(builder, where, BYTES), HALVES)


def _add_pairs(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    """As the processor has it in one instruction: products of 16 bits, of which neighbours are added, in 32 bits."""
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (choose(builder, products, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    return builder.add(sums, builder.add(even, odd))


def fetch(sums: Any, codes: Array, f: int, d: int) -> None:
    """Ask memory for some weights of as many outputs, from f on: all of them, when d has gone through all inputs.

    float32 is asked for in the order that it lies in; the others, whose rows are shorter, from all at once. A single
    output's aren't asked for: they come one behind the other.
    """


@emits(fetch, lambda sums, codes, f, d: types.void)
def _fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, codes, f, d = arguments
    of_codes, outputs = signature.args[1], SHAPES[sums.type.count][1]
    if outputs == 1:
        pass
    elif of_codes.dtype != types.float32:
        for k in range(outputs):
            ask_for(builder, address(context, builder, of_codes, codes, further(builder, f, k), d))
    else:
        where = address(context, builder, of_codes, codes, f, builder.mul(d, d.type(outputs)))
        ask_for(builder, where, outputs * LANES)
    return context.get_dummy_value()


def store_totals(sums: Any, totals: Array) -> None:
    """The sums over all lanes: (rows, outputs)."""
    totals[:] = sums.sum(axis=2, dtype=sums.dtype)


@emits(store_totals, lambda sums, totals: types.void)
def _store_totals(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Each sum's upper half of lanes is added to its lower, again and again; two sums share lanes that get free."""
    sums, totals = arguments
    add = builder.add if signature.args[0].vector.element == ir.IntType(32) else builder.fadd
    rows, outputs = SHAPES[sums.type.count]
    for row in range(rows):
        vectors, width = [builder.extract_value(sums, row * outputs + k) for k in range(outputs)], LANES
        while width > 1:
            lower = [first + i for first in range(0, vectors[0].type.count, width) for i in range(width // 2)]
            upper = [lane + width // 2 for lane in lower]
            if len(vectors) > 1:
                second = vectors[0].type.count
                lower, upper = (half + [second + lane for lane in half] for half in (lower, upper))
                vectors = [add(choose(builder, a, lower, b), choose(builder, a, upper, b))
                           for a, b in zip(vectors[::2], vectors[1::2], strict=True)]  # fmt: skip
            else:
                vectors = [add(choose(builder, vectors[0], lower), choose(builder, vectors[0], upper))]
            width //= 2
        store(builder, vectors[0], address(context, builder, signature.args[1], totals, INDEX(row), INDEX(0)))
    return context.get_dummy_value()


@register_jitable
def multiply(sums: Any, x: Array, r: int, codes: Array, f: int, start: int, end: int, totals: Array) -> None:
    """Some rows of x, from the r-th on, times some outputs, from the f-th on, into ``totals`` (rows, outputs).

    Only the inputs from `start` to `end` count; ``sums`` are what `no_sums` and its like give, for as many of both.
    """
    whole = end - (end - start) % step(codes)
    # Each rows' turn asks for its share of weights, so that memory is busy while they compute.
    ahead = min(f + AHEAD, len(codes) - totals.shape[1])
    first, last = start + r * (end - start) // len(x), start + (r + len(totals)) * (end - start) // len(x)
    for d in range(start, whole, step(codes)):
        if first <= d < last:
            fetch(sums, codes, ahead, d)
        sums = add_products(sums, x, r, codes, f, d)
    store_totals(sums, totals)
    for d in range(whole, end):
        for row in range(len(totals)):
            for k in range(totals.shape[1]):
                totals[row, k] += x[r + row, d] * widen(codes[f + k, d])


def dot_rows(x: Array, codes: Array, bias: Array, out: Array) -> None:
    """x @ weights.T + bias into ``out``: (R, D), (F, D) float32 or bfloat16, (F,) → (R, F). To be compiled."""
    R, D = x.shape
    F = len(codes)
    if F < FOUR:
        for r in range(R):
            for f in range(F):
                out[r, f] = bias[f]
                for d in range(D):
                    out[r, f] += x[r, d] * widen(codes[f, d])
        return
    if R < TOGETHER:
        for part in prange((F + OUTPUTS - 1) // OUTPUTS):
            first, totals = np.int64(part) * OUTPUTS, np.empty((1, ALONE), np.float32)
            for some in range(first, min(F, first + OUTPUTS), ALONE):
                f = min(some, F - ALONE)  # the last ones overlap others, which get the same sums once more
                for r in range(R):
                    multiply(no_sums_alone(codes), x, r, codes, f, 0, D, totals)
                    for k in range(ALONE):
                        out[r, f + k] = totals[0, k] + bias[f + k]
        return
    for part in prange((F + OUTPUTS - 1) // OUTPUTS):
        first, totals = np.int64(part) * OUTPUTS, np.empty((TOGETHER, FOUR), np.float32)
        for some in range(first, min(F, first + OUTPUTS), FOUR):
            f = min(some, F - FOUR)
            r = 0
            while r < R:
                if r + TOGETHER <= R:
                    mine = totals
                    multiply(no_sums_of_rows(codes), x, r, codes, f, 0, D, mine)
                else:
                    mine = totals[:1]
                    multiply(no_sums(codes), x, r, codes, f, 0, D, mine)
                for row in range(len(mine)):
                    for k in range(FOUR):
                        out[r + row, f + k] = mine[row, k] + bias[f + k]
                r += len(mine)

"""int4 matrices times few vectors: tiles of outputs, two inputs a byte, whole numbers of 16 bits.

A tile's outputs lie side by side, so that one instruction adds an input to many of them; a tile lies in one piece of
memory, which a thread reads from end to end, asking for what lies further on.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.quantize import GROUP, INT4_STEP, TILE
from .arithmetic import PARALLEL, SERIAL, codes4, grids, matrix, out2, threads_here, vector, widen
from .compiled import compiled
from .dots import FURTHER
from .llvm import Builder, Context, Signature, Value, Values
from .reduced import round_group
from .registers import (
    LANES,
    Registers,
    address,
    ask_for,
    choose,
    emits,
    further,
    load,
    load_upper_halves,
    multiply_add,
    repeat,
    store,
)

Array = np.ndarray
WHOLE = Registers(types.int16, TILE // (2 * LANES), lanes=2 * LANES)  # a group's sums of whole numbers
TOTALS = Registers(types.float32, TILE // LANES)


def all_alike(number: int) -> Array:
    """A tile of sums that start from the same number, of 16 bits."""
    return np.full(TILE, number)


@emits(all_alike, lambda number: WHOLE)
def _all_alike(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    whole = WHOLE.array(None)
    for v in range(WHOLE.array.count):
        whole = builder.insert_value(whole, repeat(builder, arguments[0], WHOLE.vector), v)
    return whole


def no_totals() -> Array:
    """A tile of zeros, float32."""
    return np.zeros(TILE, np.float32)


@emits(no_totals, lambda: TOTALS)
def _no_totals(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    return TOTALS.array(None)


def add_pair(whole: Array, levels: Array, r: int, d: int, codes: Array, tile: int, g: int, j: int) -> Array:
    """Add two inputs, ``levels[r, d : d + 2]``, each times its half of a row of bytes; sums may wrap around."""
    row = codes[tile, g, j].astype(np.int16)
    with np.errstate(over="ignore"):
        return whole + (row & 15) * levels[r, d] + (row >> 4) * levels[r, d + 1]


@emits(add_pair, lambda whole, levels, r, d, codes, tile, g, j: WHOLE)
def _add_pair(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    whole, levels, r, d, codes, tile, g, j = arguments
    pair = [address(context, builder, signature.args[1], levels, r, further(builder, d, k)) for k in (0, 1)]
    inputs = [repeat(builder, builder.load(one), WHOLE.vector) for one in pair]
    where = address(context, builder, signature.args[4], codes, tile, g, j, j.type(0))
    ask_for(builder, builder.gep(where, [ir.Constant(ir.IntType(64), FURTHER)]), TILE // 4)
    for v in range(WHOLE.array.count):
        pairs = load(builder, where, ir.VectorType(ir.IntType(8), 2 * LANES), v * 2 * LANES)
        pairs = builder.zext(pairs, WHOLE.vector)
        lower = builder.and_(pairs, WHOLE.vector([15] * 2 * LANES))
        upper = builder.lshr(pairs, WHOLE.vector([4] * 2 * LANES))
        mine = builder.add(builder.extract_value(whole, v), builder.mul(lower, inputs[0]))
        whole = builder.insert_value(whole, builder.add(mine, builder.mul(upper, inputs[1])), v)
    return whole


def add_group(totals: Array, whole: Array, step: float, level: float, scales: Array, tile: int, g: int) -> Array:
    """Add a group's whole numbers, times its scales, and its middles times the sum of its inputs."""
    scale, middle = widen(scales[tile, g, 0]), widen(scales[tile, g, 1])
    return totals + scale * (whole.astype(np.int16).astype(np.float32) * step) + middle * level


@emits(add_group, lambda totals, whole, step, level, scales, tile, g: TOTALS)
def _add_group(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    totals, whole, step, level, scales, tile, g = arguments
    step, level = repeat(builder, step, TOTALS.vector), repeat(builder, level, TOTALS.vector)
    bits = ir.VectorType(ir.IntType(32), LANES)

    def floats(which: int, first: int) -> Value:
        where = address(context, builder, signature.args[4], scales, tile, g, g.type(which), g.type(0))
        return load_upper_halves(builder, where, first)

    for v in range(TOTALS.array.count):
        half = builder.extract_value(whole, v // 2)
        mine = choose(builder, half, list(range(v % 2 * LANES, (v % 2 + 1) * LANES)))
        sums = builder.fmul(builder.sitofp(builder.sext(mine, bits), TOTALS.vector), step)
        total = multiply_add(builder, floats(0, v * LANES), sums, builder.extract_value(totals, v))
        totals = builder.insert_value(totals, multiply_add(builder, floats(1, v * LANES), level, total), v)
    return totals


def put(totals: Array, out: Array) -> None:
    """Write a tile's totals down."""
    out[:] = totals


@emits(put, lambda totals, out: types.void)
def _put(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    totals, out = arguments
    where = address(context, builder, signature.args[1], out, ir.IntType(64)(0))
    for v in range(TOTALS.array.count):
        store(builder, builder.extract_value(totals, v), where, v * LANES)
    return context.get_dummy_value()


@compiled(void(matrix, types.int16[:, ::1], types.int16[:, ::1], out2, out2), **SERIAL)
def round_groups(x: Array, levels: Array, start: Array, steps: Array, level: Array) -> None:
    """Every group of x as whole numbers, with what `int4_tiles` needs of each: where its sums start, its step, its sum.

    A function of its own: inside a parallel one, Numba would make each group's sum a parallel region.
    """
    R, D = x.shape
    levels[:, D:] = 0
    for r in range(R):
        for g in range(steps.shape[1]):
            mine = levels[r, g * GROUP : min(D, g * GROUP + GROUP)]
            steps[r, g] = round_group(x[r, g * GROUP : g * GROUP + len(mine)], INT4_STEP, mine)
            total = np.int32(0)
            for d in range(len(mine)):
                total += np.int32(mine[d])
            start[r, g], level[r, g] = np.int16(-8 * total), np.float32(total) * steps[r, g]


@register_jitable
def int4_tile(
    tile: int,
    levels: Array,
    start: Array,
    steps: Array,
    level: Array,
    codes: Array,
    scales: Array,
    bias: Array,
    out: Array,
) -> None:
    """`int4_tiles` for one tile, with what `round_groups` made of the inputs."""
    first, mine = tile * TILE, np.empty(TILE, np.float32)
    for r in range(len(out)):
        totals = no_totals()
        for g in range(codes.shape[1]):
            whole = all_alike(start[r, g])
            for j in range(GROUP // 2):
                whole = add_pair(whole, levels, r, g * GROUP + 2 * j, codes, tile, g, j)
            totals = add_group(totals, whole, steps[r, g], level[r, g], scales, tile, g)
        put(totals, mine)
        for f in range(first, min(out.shape[1], first + TILE)):
            out[r, f] = mine[f - first] + bias[f]


@compiled(void(matrix, codes4, grids, vector, out2), **PARALLEL)
def int4_tiles(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """x times int4 weights, plus the bias, into ``out``: (R, D), codes and scales as in `quantize.Matrix` → (R, F).

    A group's sum of (code − 8) · level fits into 16 bits: 8 · 127 · 32 is less than 2¹⁵. So it starts from −8 times the
    sum of its levels, and it doesn't matter that the sums of code · level may wrap around on their way.
    """
    R = len(x)
    tiles, groups = codes.shape[:2]
    levels, start = np.empty((R, groups * GROUP), np.int16), np.empty((R, groups), np.int16)
    steps, level = np.empty((R, groups), np.float32), np.empty((R, groups), np.float32)
    round_groups(x, levels, start, steps, level)
    if threads_here() == 1:
        for tile in range(tiles):
            int4_tile(tile, levels, start, steps, level, codes, scales, bias, out)
    else:
        for tile in prange(tiles):
            int4_tile(np.int64(tile), levels, start, steps, level, codes, scales, bias, out)

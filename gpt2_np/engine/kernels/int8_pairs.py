"""int8 products without VNNI: pairs of 16-bit integers, which x86 multiplies and adds by one instruction (vpmaddwd).

A row's inputs have 15 bits, so they needn't be split into two bytes, as VNNI demands; the weights are widened to 16
bits. A single row widens them on their way from memory. For several rows a block of a panel is widened once, into
memory that stays in the cache, and all rows pass over it.

A sum of EXACT inputs' products fits in 32 bits; longer sums are continued in float64, which holds such integers
exactly. So the results have the bits of `int8_vectors` and of `int8_tiles`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.panels import TILE, unpacked
from .compiled import compiled
from .dot_products import HALVES, INDEX, WORDS, multiply_add_pairs
from .int8_vectors import of_panel, round_row
from .kernel_types import PARALLEL, SERIAL, codes8, matrix, out2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD, AHEAD_ONE_ROW, ROWS_PER_PANEL_PASS, ROWS_PER_TASK, one_thread
from .simd import LANES, accumulate, address, broadcast, emits, index_after, load, prefetch, store

Array = np.ndarray
FOURS = 64  # groups of four inputs in a block of widened weights
EXACT = 256  # the same in a sum that fits in 32 bits: 1024 · 16383 · 128 < 2³¹
VECTORS = 2  # vectors of outputs at a time, of several rows
OUTPUTS = VECTORS * LANES
ROWS_PER_PASS = 4  # rows at a time
levels2 = types.Array(types.int16, 2, "C")
steps1 = types.float32[::1]


@compiled(void(matrix, levels2, steps1), **SERIAL)
def round_rows(x: Array, levels: Array, steps: Array) -> None:
    """Round every row of x to integer multiples of a step, the inputs of each group of four in the order 0, 2, 1, 3.

    This is a separate function because Numba would turn its loops into parallel regions inside a parallel one.
    """
    D = x.shape[1]
    for r in range(len(x)):
        steps[r] = round_row(x[r], levels[r])
        levels[r, D:] = 0
        for d in range(1, levels.shape[1], 4):
            second = levels[r, d]
            levels[r, d] = levels[r, d + 1]
            levels[r, d + 1] = second


def widen(codes: Array, n: int, four: int, block: Array, pair: int) -> None:
    """Write a panel's weights for four inputs into ``block``: 0 and 2 to ``block[:, pair]``, 1 and 3 behind them.

    ``block`` is (TILE / OUTPUTS, pairs, OUTPUTS, 2) int16.
    """
    weights = unpacked(codes[n : n + 1, four : four + 1])[0].astype(np.int16)  # (4, TILE)
    block[:, pair : pair + 2] = weights.reshape(2, 2, -1, OUTPUTS).transpose(2, 1, 3, 0)


@emits(widen, lambda codes, n, four, block, pair: types.void)
def _widen(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    codes, n, four, block, pair = arguments
    zero = INDEX(0)
    there = address(context, builder, signature.args[0], codes, n, four, zero, zero)
    prefetch(builder, there, 4 * TILE, AHEAD)
    for first in range(0, TILE, LANES):
        group, output = INDEX(first // OUTPUTS), INDEX(first % OUTPUTS)
        for k, weights in enumerate(_pairs(builder, there, 4 * first)):
            place = index_after(builder, pair, k)
            store(builder, weights, address(context, builder, signature.args[3], block, group, place, output, zero))
    return context.get_dummy_value()


def _pairs(builder: Builder, where: Value, first: int) -> tuple[Value, Value]:
    """Load four inputs' weights for each lane, and widen them to 16 bits: those of 0 and 2, and those of 1 and 3."""
    weights, eight = _load_halves(builder, where, first), HALVES([8] * HALVES.count)
    return builder.ashr(builder.shl(weights, eight), eight), builder.ashr(weights, eight)


def _load_halves(builder: Builder, where: Value, first: int = 0) -> Value:
    """Load a vector of 16-bit integers that starts so many elements after `where`, whatever that points to."""
    return load(builder, builder.bitcast(builder.gep(where, [INDEX(first)]), ir.IntType(16).as_pointer()), HALVES)


def _two(builder: Builder, where: Value, d: Value) -> Value:
    """Broadcast two neighbouring 16-bit inputs of a row, from the d-th on."""
    word = builder.bitcast(builder.gep(where, [d]), ir.IntType(32).as_pointer())
    return builder.bitcast(broadcast(builder, builder.load(word, align=1), WORDS), HALVES)


def _step(rows: int) -> Callable[..., None]:
    """Return the product of so many rows, from the r-th on, with the first `pairs` pairs of a widened block.

    The rows have `start` inputs before the block's first one. The step writes OUTPUTS sums of each row to ``sums``,
    int32, from row s and the g-th OUTPUTS columns on; unless it is `fresh`, it adds to them.
    """

    def step(
        levels: Array, r: int, start: int, block: Array, g: int, pairs: int, fresh: bool, sums: Array, s: int
    ) -> None:
        some = levels[r : r + rows, start : start + 2 * pairs].reshape(rows, pairs, 2).astype(np.int32)
        products = np.einsum("rpk,pok->ro", some, block[g, :pairs].astype(np.int32))
        where = sums[s : s + rows, g * OUTPUTS : (g + 1) * OUTPUTS]
        where[:] = products if fresh else where + products

    @emits(step, lambda levels, r, start, block, g, pairs, fresh, sums, s: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        levels, r, start, block, g, pairs, fresh, sums, s = arguments
        of_levels, of_block, of_sums, zero = signature.args[0], signature.args[3], signature.args[7], INDEX(0)
        inputs = [
            address(context, builder, of_levels, levels, index_after(builder, r, row), start) for row in range(rows)
        ]
        weights = address(context, builder, of_block, block, g, zero, zero, zero)
        column = builder.mul(g, INDEX(OUTPUTS))
        places = [
            address(context, builder, of_sums, sums, index_after(builder, s, row), index_after(builder, column, v))
            for row in range(rows)
            for v in range(0, OUTPUTS, LANES)
        ]

        def add(d: Value, totals: list[Value]) -> list[Value]:
            here = builder.gep(weights, [builder.mul(d, INDEX(2 * OUTPUTS))])
            some = [_load_halves(builder, here, v * 2 * LANES) for v in range(VECTORS)]
            each = [_two(builder, one, builder.mul(d, INDEX(2))) for one in inputs]
            return [
                multiply_add_pairs(builder, each[k // VECTORS], some[k % VECTORS], total)
                for k, total in enumerate(totals)
            ]

        before = [builder.select(fresh, ir.Constant(WORDS, None), load(builder, place, WORDS)) for place in places]
        for total, place in zip(accumulate(builder, before, zero, pairs, INDEX(1), add), places, strict=True):
            store(builder, total, place)
        return context.get_dummy_value()

    return step


def one_row(levels: Array, codes: Array, n: int, first: int, end: int, sums: Array) -> None:
    """Write the products of the first row with a panel's groups of four inputs, from `first` to `end`, to ``sums[0]``,
    int32.
    """
    some = levels[0, 4 * first : 4 * end].reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1).astype(np.int32)
    sums[0] = some @ unpacked(codes[n : n + 1, first:end])[0].astype(np.int32)


@emits(one_row, lambda levels, codes, n, first, end, sums: types.void)
def _one_row(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    levels, codes, n, first, end, sums = arguments
    zero = INDEX(0)
    inputs = address(context, builder, signature.args[0], levels, zero, zero)
    panel = address(context, builder, signature.args[1], codes, n, zero, zero, zero)

    def add(d: Value, totals: list[Value]) -> list[Value]:
        here, totals = builder.gep(panel, [builder.mul(d, INDEX(4 * TILE))]), list(totals)
        prefetch(builder, here, 4 * TILE, AHEAD_ONE_ROW)
        four = builder.mul(d, INDEX(4))
        each = [_two(builder, inputs, index_after(builder, four, k)) for k in (0, 2)]
        for v in range(len(totals)):
            for two, weights in zip(each, _pairs(builder, here, v * 4 * LANES), strict=True):
                totals[v] = multiply_add_pairs(builder, two, weights, totals[v])
        return totals

    zeros = [ir.Constant(WORDS, None)] * (TILE // LANES)
    for v, total in enumerate(accumulate(builder, zeros, first, end, INDEX(1), add)):
        store(builder, total, address(context, builder, signature.args[5], sums, zero, INDEX(v * LANES)))
    return context.get_dummy_value()


STEPS = {rows: _step(rows) for rows in range(1, ROWS_PER_PASS + 1)}
one, two, three, four = (STEPS[rows] for rows in (1, 2, 3, 4))


@register_jitable
def pass_over(
    levels: Array, first: int, size: int, start: int, block: Array, pairs: int, fresh: bool, sums: Array
) -> None:
    """Run the steps of so many rows, from the first on, for a widened block."""
    for g in range(TILE // OUTPUTS):
        for s in range(0, size, ROWS_PER_PASS):
            r = first + s
            if size - s == 1:
                one(levels, r, start, block, g, pairs, fresh, sums, s)
            elif size - s == 2:
                two(levels, r, start, block, g, pairs, fresh, sums, s)
            elif size - s == 3:
                three(levels, r, start, block, g, pairs, fresh, sums, s)
            else:
                four(levels, r, start, block, g, pairs, fresh, sums, s)


@register_jitable
def add_exactly(levels: Array, first: int, size: int, codes: Array, n: int, start: int, end: int, sums: Array) -> None:
    """Write the products of so many rows with a panel's groups of four, from `start` to `end`, to ``sums``."""
    if size == 1:
        one_row(levels[first : first + 1], codes, n, start, end, sums)
        return
    block = np.empty((TILE // OUTPUTS, 2 * FOURS, OUTPUTS, 2), np.int16)
    for begin in range(start, end, FOURS):
        fours = min(end - begin, FOURS)
        for k in range(fours):
            widen(codes, n, begin + k, block, 2 * k)
        pass_over(levels, first, size, 4 * begin, block, 2 * fours, begin == start, sums)


@register_jitable
def put_scaled(sums: Array, scale: Array, step: float, biases: Array, out: Array) -> None:
    """Write a row's sums, which are integers, times the outputs' scales and the row's step, plus biases, to ``out``."""
    for k in range(len(out)):
        out[k] = np.float32(sums[k]) * (scale[k] * step) + biases[k]


@register_jitable(**SERIAL)
def int8_panel(n: int, levels: Array, steps: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Run `by_pairs` for the n-th panel, given each row's integers and step."""
    R, fours, f = len(out), codes.shape[1], n * TILE
    columns = min(TILE, out.shape[1] - f)
    scale, _, biases = of_panel(n, scales, bias)
    sums = np.empty((min(R, ROWS_PER_PANEL_PASS), TILE), np.int32)
    totals = np.empty((len(sums) if fours > EXACT else 0, TILE), np.float64)
    for first in range(0, R, ROWS_PER_PANEL_PASS):
        size = min(R - first, ROWS_PER_PANEL_PASS)
        totals[:] = 0
        for start in range(0, fours, EXACT):
            add_exactly(levels, first, size, codes, n, start, min(fours, start + EXACT), sums)
            for r in range(size if fours > EXACT else 0):
                for k in range(TILE):
                    totals[r, k] += np.float64(sums[r, k])
        for r in range(first, first + size):
            mine = out[r, f : f + columns]
            if fours > EXACT:
                put_scaled(totals[r - first], scale, steps[r], biases, mine)
            else:
                put_scaled(sums[r - first], scale, steps[r], biases, mine)


@compiled(void(matrix, codes8, matrix, vector, out2), **PARALLEL)
def by_pairs(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `int8.int8_panels` by pairs."""
    R = len(x)
    levels, steps = np.empty((R, codes.shape[1] * 4), np.int16), np.empty(R, np.float32)
    if one_thread(R):
        round_rows(x, levels, steps)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            first, last = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            round_rows(x[first:last], levels[first:last], steps[first:last])
    if threads_here() == 1:
        for n in range(len(codes)):
            int8_panel(n, levels, steps, codes, scales, bias, out)
    else:
        for n in prange(len(codes)):
            int8_panel(np.int64(n), levels, steps, codes, scales, bias, out)

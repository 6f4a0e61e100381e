"""The innermost steps of products in float32 and bfloat16: some rows pass over a block of a panel of weights.

Each input is broadcast over the lanes and multiplied with a panel's weights for it (`weights.panels` describes the
layout). Each output's sum has its own lane, so nothing is ever added across lanes, and the sums of several rows stay in
registers during a pass over the panel.

Every sum is taken in one order, whatever the number of rows, threads and lanes: first the inputs of a block of BLOCK in
sequence, then the blocks' sums, then the bias. So the product is batch-invariant: a row's bits don't depend on the rest
of the batch, nor on whether its positions come together or one by one. Blocks also keep rounding errors small, which
grow with the length of a chain of additions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import register_jitable

from ...weights.panels import TILE, from_bits, unpacked
from .dot_products import FLOATS, INDEX, WORDS
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, lines_to_prefetch, prefetch_step
from .simd import (
    AVX512,
    LANES,
    LINE_FLOATS,
    accumulate,
    address,
    bfloat16_pairs,
    broadcast,
    emits,
    index_after,
    load,
    multiply_add,
    multiply_add_bfloat16,
    prefetch,
    prefetch_line,
    store,
)

Array = np.ndarray
BLOCK = 128  # inputs whose products are summed in sequence: the error of longer chains exceeds torch's
VECTORS = 4  # vectors of outputs at a time: the sums of ROWS_PER_PASS rows fit in the registers
NARROW = 32  # columns of a panel that the narrow steps take
ROWS_PER_PASS = 6 if AVX512 else 3  # rows at a time
# Columns of a block that is packed for many rows. With AVX2 it stays in the first-level cache, 16 KB, and nothing in it
# needs to be prefetched; with AVX-512 the sums of so many columns fill the registers.
WIDTH = TILE if AVX512 else NARROW
INPUTS_AHEAD = 8  # inputs ahead that weights are prefetched from the second-level cache into the first
UNROLLED = 4  # inputs per loop iteration for a single row


def _step(rows: int, columns: int = TILE, width: int = TILE) -> Callable[..., None]:
    """Return the product of so many rows, from the r-th on, with one block of a panel's inputs, from ``start`` to
    ``end``, for its first ``columns`` of ``width``. A block narrower than TILE is in the first-level cache; the next
    rows are prefetched instead.

    The rows have so many inputs ``more`` before the panel's first one. A block of bfloat16 has an even number of
    inputs; where x has two of them in a word too, words are counted, not inputs. The step writes to ``out[r : r + rows,
    f : f + columns]`` for the rows' first inputs, and adds to it otherwise. ``line``, ``last`` and ``pace`` are as in
    `panel_passes.lines_to_prefetch`.
    """

    def step(
        x: Array,
        r: int,
        more: int,
        panels: Array,
        n: int,
        start: int,
        end: int,
        line: int,
        last: int,
        pace: int,
        out: Array,
        f: int,
    ) -> None:
        span = 1 if panels.dtype == x.dtype else 2  # entries of x in a step
        some = x[r : r + rows, more + start : more + end]
        some = some if x.dtype == np.float32 else from_bits(some.view(np.uint16))
        sums = some @ unpacked(panels[n : n + 1, start // span : end // span])[0, :, :columns]
        there = out[r : r + rows, f : f + columns]
        there[:] = sums + (there if more + start > 0 else 0)

    @emits(step, lambda x, r, more, panels, n, start, end, line, last, pace, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        x, r, more, panels, n, start, end, line, last, pace, out, f = arguments
        of_x, of_panels, of_out = (signature.args[k] for k in (0, 3, 10))
        span = 1 if of_panels.dtype == of_x.dtype else 2  # entries of x in a step: two weights share a word of bfloat16
        each_input, each_weight = (FLOATS if kind.dtype == types.float32 else WORDS for kind in (of_x, of_panels))
        add_products = multiply_add if of_x.dtype == types.float32 else multiply_add_bfloat16
        size = builder.udiv(builder.sub(end, start), INDEX(span))
        first = builder.add(more, start)

        def inputs_of(r: Value) -> list[Value]:
            return [address(context, builder, of_x, x, index_after(builder, r, row), first) for row in range(rows)]

        inputs, next_inputs = inputs_of(r), inputs_of(index_after(builder, r, rows))
        block = address(context, builder, of_panels, panels, n, builder.udiv(start, INDEX(span)), INDEX(0))
        vectors = min(VECTORS, columns // LANES)
        loaded = vectors * LANES * 4  # bytes of weights for each input
        in_cache = width < TILE
        several = in_cache and rows == ROWS_PER_PASS  # of the last rows there may be fewer, and none follow
        together = LINE_FLOATS if several else UNROLLED

        for column in range(0, columns, vectors * LANES):

            def add(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                if rows > 1 and not in_cache:
                    if column == 0:
                        prefetch_step(builder, block, d, line, last, pace)
                    here = builder.gep(block, [index_after(builder, builder.mul(d, INDEX(width)), column)])
                    prefetch(builder, here, loaded, INPUTS_AHEAD * width * 4, level=1)
                return times(d, sums)

            def times(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                here = builder.gep(block, [index_after(builder, builder.mul(d, INDEX(width)), column)])
                sums, first = list(sums), builder.mul(d, INDEX(span))
                places = [[builder.gep(one, [index_after(builder, first, k)]) for one in inputs] for k in range(span)]
                # One vector of weights at a time: 16 registers hold no more beside the sums.
                for k, where in enumerate(places):
                    some = [broadcast(builder, builder.load(one), each_input) for one in where]
                    there = here if k == 0 else _unrelated(builder, here)  # words are loaded again, not kept
                    for v in range(vectors):
                        loaded = load(builder, there, each_weight, v * LANES)
                        weight = loaded if span == 1 else bfloat16_pairs(builder, loaded)[k]
                        for row, each in enumerate(some):
                            n = row * vectors + v
                            sums[n] = add_products(builder, each, weight, sums[n])
                return sums

            def add_some(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                if several:
                    for one in next_inputs:
                        prefetch_line(builder, builder.gep(one, [builder.mul(d, INDEX(span))]), level=1)
                for k in range(together):
                    if not in_cache:
                        here = builder.mul(index_after(builder, d, k), INDEX(width))
                        prefetch(
                            builder, builder.gep(block, [index_after(builder, here, column)]), loaded, AHEAD_ONE_ROW
                        )
                    sums = times(index_after(builder, d, k), sums)
                return sums

            sums, done = [ir.Constant(FLOATS, None)] * (rows * vectors), INDEX(0)
            if rows == 1 or in_cache:
                done = builder.sub(size, builder.srem(size, INDEX(together)))
                sums = accumulate(builder, sums, INDEX(0), done, INDEX(together), add_some)
            sums = accumulate(builder, sums, done, size, INDEX(1), add)
            places = [
                address(context, builder, of_out, out, index_after(builder, r, row), index_after(builder, f, offset))
                for row in range(rows)
                for offset in range(column, column + vectors * LANES, LANES)
            ]
            with builder.if_else(builder.icmp_signed("==", first, first.type(0))) as (fresh, later):
                with fresh:
                    for one, place in zip(sums, places, strict=True):
                        store(builder, one, place)
                with later:
                    for one, place in zip(sums, places, strict=True):
                        store(builder, builder.fadd(load(builder, place, FLOATS), one), place)
        return context.get_dummy_value()

    return step


def _unrelated(builder: Builder, where: Value) -> Value:
    """Return the same address, of which LLVM doesn't know that it is the same."""
    kind = ir.FunctionType(where.type, [where.type])
    return builder.call(ir.InlineAsm(kind, "", "=r,0"), [where])


STEPS = {rows: _step(rows) for rows in range(1, ROWS_PER_PASS + 1)}
NARROW_STEPS = {rows: _step(rows, NARROW, WIDTH) for rows in (1, 2, ROWS_PER_PASS)}
pass_of_block = (NARROW_STEPS if WIDTH == NARROW else STEPS)[ROWS_PER_PASS]
one_row, two_rows = STEPS[1], STEPS[2]
three_rows, four_rows, five_rows, six_rows = (STEPS.get(rows, two_rows) for rows in (3, 4, 5, 6))


@register_jitable
def rows_step(
    rows: int,
    x: Array,
    r: int,
    more: int,
    panels: Array,
    n: int,
    start: int,
    end: int,
    line: int,
    last: int,
    pace: int,
    out: Array,
    f: int,
) -> None:
    """Run the step of so many rows, at most ROWS_PER_PASS."""
    if rows == 1:
        one_row(x, r, more, panels, n, start, end, line, last, pace, out, f)
    elif rows == 2:
        two_rows(x, r, more, panels, n, start, end, line, last, pace, out, f)
    elif rows == 3:
        three_rows(x, r, more, panels, n, start, end, line, last, pace, out, f)
    elif rows == 4:
        four_rows(x, r, more, panels, n, start, end, line, last, pace, out, f)
    elif rows == 5:
        five_rows(x, r, more, panels, n, start, end, line, last, pace, out, f)
    else:
        six_rows(x, r, more, panels, n, start, end, line, last, pace, out, f)


@register_jitable
def rows_at_once(rows: int) -> int:
    """Return how many of so many rows pass next: as many as the registers hold, but 2 and 2 rather than 3 and 1."""
    return 2 if ROWS_PER_PASS == 3 and rows == 4 else min(rows, ROWS_PER_PASS)


def _bias_step(columns: int) -> Callable[..., None]:
    """Return the addition of so many columns' bias."""

    def add_bias(bias: Array, r: int, rows: int, out: Array, f: int) -> None:
        """Add the bias to some rows of ``out``, from the r-th on, in the columns from the f-th on.

        They have just been written, and are in the first-level cache.
        """
        out[r : r + rows, f : f + columns] += bias[:columns]

    @emits(add_bias, lambda bias, r, rows, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        bias, r, rows, out, f = arguments
        first = address(context, builder, signature.args[0], bias, INDEX(0))
        biases = [load(builder, first, FLOATS, k) for k in range(0, columns, LANES)]
        with cgutils.for_range_slice(builder, r, builder.add(r, rows), INDEX(1), inc=True) as (row, _):
            place = address(context, builder, signature.args[3], out, row, f)
            for v, each in enumerate(biases):
                store(builder, builder.fadd(load(builder, place, FLOATS, v * LANES), each), place, v * LANES)
        return context.get_dummy_value()

    return add_bias


add_bias, add_bias_of_block = _bias_step(TILE), _bias_step(WIDTH)


@register_jitable
def rows_over_block(
    x: Array,
    first: int,
    beyond: int,
    more: int,
    panels: Array,
    n: int,
    start: int,
    end: int,
    ahead: int,
    lines: int,
    each: int,
    bias: Array,
    out: Array,
    f: int,
) -> None:
    """Let the rows of x from ``first`` to ``beyond`` pass over one block of a panel, some at a time (`_step`).

    The bias is added after a row's last inputs. The block that is prefetched meanwhile has so many cache ``lines``,
    ``each`` of them for a step of the loop, and starts ``ahead`` lines after where it would follow this one.
    """
    r = first
    while r < beyond:
        rows = rows_at_once(beyond - r)
        line, last, pace = lines_to_prefetch(r - first, rows, beyond - first, ROWS_PER_PASS, lines, each)
        rows_step(rows, x, r, more, panels, n, start, end, ahead + line, ahead + last, pace, out, f)
        if more + end == x.shape[1]:
            add_bias(bias, r, rows, out, f)
        r += rows


@register_jitable
def padded(bias: Array) -> Array:
    """Return the last panel's biases, and 0 for its missing columns: (TILE,)."""
    whole = np.zeros(TILE, np.float32)
    for k in range(len(bias)):
        whole[k] = bias[k]
    return whole

"""bfloat16 products by AMX: sixteen rows of inputs, rounded to bfloat16 too, and 64 outputs at a time.

Products are exact, and sums are float32. Each sum takes its terms in one order, whatever the number of rows.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...weights.panels import GROUP, TILE, from_bits, unpacked
from .amx import BYTES_OF_ROW, ROWS, configure, load_tile, multiply_halves, release, store_tile
from .bfloat16_inputs import rounded_bits
from .compiled import compiled
from .dot_products import INDEX
from .float32_steps import padded
from .kernel_types import SERIAL, matrix
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, put_columns
from .simd import LINE_BYTES, address, emits, index_after, prefetch_line

Array = np.ndarray
BLOCK = 256  # inputs of a panel that all rows pass over before the next ones: they fit in the first-level cache
VECTORS = TILE // ROWS  # vectors of outputs, a tile of sums each
INPUTS, WEIGHTS = VECTORS, VECTORS + 1  # the tiles behind the sums'
LOADED = 3  # tiles for weights, which are loaded in turn
halves1 = types.Array(types.uint16, 1, "C")


@compiled(void(matrix, halves1), **SERIAL)
def tiles_of_rows(x: Array, tiles: Array) -> None:
    """Round every row of x, (R, D), to bfloat16, padded with zeros to whole tiles, in the order of loading.

    The order is: groups of sixteen rows (the last may have fewer); within a group, 32 inputs at a time; then the rows.
    """
    R, D = x.shape
    blocks = (D + GROUP - 1) // GROUP
    for r in range(R):
        block = r // ROWS * ROWS
        rows = min(ROWS, R - block)
        start = (block * blocks + r - block) * GROUP
        for b in range(blocks):
            width = min(GROUP, D - b * GROUP)
            for k in range(width):
                tiles[start + k] = rounded_bits(x[r, b * GROUP + k]) >> 16
            for k in range(width, GROUP):
                tiles[start + k] = 0
            start += rows * GROUP


def some_rows(
    tiles: Array,
    r: int,
    rows: int,
    panels: Array,
    n: int,
    start: int,
    end: int,
    line: int,
    pace: int,
    bias: Array,
    out: Array,
    f: int,
) -> None:
    """Add the product of up to 16 rows, from the r-th on, with a block of a panel's inputs to ``out``.

    The inputs go from ``start`` to ``end``, multiples of 32. The product is added to ``out[r : r + rows, f : f +
    TILE]``, or to the bias where ``start`` is 0. The tiles must be configured for so many rows. ``pace`` lines are
    prefetched with every 32 inputs, from the panel's cache line ``line`` on.
    """
    D = panels.shape[1] * 2
    x = from_bits(tiles[r * D : (r + rows) * D]).reshape(D // GROUP, rows, GROUP)
    x = x.swapaxes(0, 1).reshape(rows, D)[:, start:end]
    so_far = out[r : r + rows, f : f + TILE] if start > 0 else bias
    out[r : r + rows, f : f + TILE] = so_far + x @ unpacked(panels[n : n + 1, start // 2 : end // 2])[0]


@emits(some_rows, lambda tiles, r, rows, panels, n, start, end, line, pace, bias, out, f: types.void)
def _some_rows(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    tiles, r, rows, panels, n, start, end, line, pace, bias, out, f = arguments
    of_tiles, of_panels, of_bias, of_out = (signature.args[k] for k in (0, 3, 9, 10))
    width = builder.mul(
        builder.extract_value(context.make_array(of_panels)(context, builder, panels).shape, 1), INDEX(2)
    )
    tile = builder.mul(rows, INDEX(GROUP))  # numbers of a tile of inputs
    before = builder.add(builder.mul(r, width), builder.mul(start, rows))
    first = address(context, builder, of_tiles, tiles, before)
    columns = builder.extract_value(context.make_array(of_out)(context, builder, out).shape, 1)
    out_stride = builder.mul(columns, INDEX(4))
    block = address(context, builder, of_panels, panels, n, builder.udiv(start, INDEX(2)), INDEX(0))
    ahead = builder.bitcast(block, ir.IntType(8).as_pointer())
    places = [address(context, builder, of_out, out, r, index_after(builder, f, v * ROWS)) for v in range(VECTORS)]
    with builder.if_else(builder.icmp_signed("==", start, start.type(0))) as (fresh, more):
        with fresh:  # the same row, again and again
            for v in range(VECTORS):
                load_tile(builder, v, address(context, builder, of_bias, bias, INDEX(v * ROWS)), INDEX(0))
        with more:
            for v, place in enumerate(places):
                load_tile(builder, v, place, out_stride)
    with cgutils.for_range(builder, builder.udiv(builder.sub(end, start), INDEX(GROUP))) as loop:
        d = loop.index
        load_tile(builder, INPUTS, builder.gep(first, [builder.mul(d, tile)]), INDEX(BYTES_OF_ROW))
        with cgutils.for_range(builder, pace) as next_line:
            number = builder.add(builder.add(line, builder.mul(d, pace)), next_line.index)
            prefetch_line(builder, builder.gep(ahead, [builder.mul(number, INDEX(LINE_BYTES))]))
        for v in range(VECTORS):
            where = builder.gep(block, [index_after(builder, builder.mul(d, INDEX(GROUP // 2 * TILE)), v * ROWS)])
            weights = WEIGHTS + v % LOADED
            load_tile(builder, weights, where, INDEX(4 * TILE))
            multiply_halves(builder, v, INPUTS, weights)
    for v, place in enumerate(places):
        store_tile(builder, v, place, out_stride)
    return context.get_dummy_value()


@register_jitable
def rows_by_tiles(n: int, tiles: Array, panels: Array, bias: Array, out: Array, f: int) -> None:
    """Write all rows times the n-th panel, plus the bias, (TILE,), into TILE columns of ``out``, from the f-th on.

    The rows pass over the panel block by block, so that a block stays in the first-level cache.
    """
    R, D = len(out), panels.shape[1] * 2
    passes = (R + ROWS - 1) // ROWS
    for start in range(0, D, BLOCK):
        end = min(D, start + BLOCK)
        steps, lines = (end - start) // GROUP, (end - start) * TILE * 2 // LINE_BYTES
        pace = (lines + passes * steps - 1) // (passes * steps)
        for k in range(passes):
            r, rows = k * ROWS, min(ROWS, R - k * ROWS)
            if k == 0 or rows < ROWS:
                configure(rows, WEIGHTS)
            line = lines + k * pace * steps if passes > 1 else AHEAD_ONE_ROW // LINE_BYTES
            some_rows(tiles, r, rows, panels, n, start, end, line, pace, bias, out, f)
    release()


@register_jitable
def panel_by_tiles(n: int, tiles: Array, panels: Array, bias: Array, out: Array) -> None:
    """Write the product with the n-th panel, plus the bias, into its columns of ``out``. The last panel may have
    fewer.
    """
    R, F, f = len(out), out.shape[1], n * TILE
    if f + TILE <= F:
        rows_by_tiles(n, tiles, panels, bias[f : f + TILE], out, f)
    else:
        whole = np.empty((R, TILE), np.float32)
        rows_by_tiles(n, tiles, panels, padded(bias[f:]), whole, 0)
        put_columns(whole, out, f)

"""bfloat16 products by AMX, whose inputs must be bfloat16 too: each float32 input is split into three of them.

A float32 number has 24 significant bits, so it is exactly the sum of three bfloat16 numbers of 8. No input is rounded,
products are exact, and sums are float32, as in vectors. Each sum takes its terms in one order, whatever the number of
rows: 32 inputs at a time, first parts, second parts, third parts.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...weights.panels import GROUP, TILE, from_bits, unpacked
from .amx import BYTES_OF_ROW, ROWS, configure, load_tile, multiply_halves, release, store_tile
from .compiled import compiled
from .dot_products import INDEX
from .kernel_types import SERIAL, bits_of_float, float_of_bits, matrix
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, put_columns
from .simd import LINE_BYTES, address, emits, index_after, prefetch_line

Array = np.ndarray
PARTS = 3
BLOCK = 768  # inputs of a panel that all rows pass over before the next ones
VECTORS = TILE // ROWS  # vectors of outputs, a tile of sums each
INPUTS, WEIGHTS = VECTORS, VECTORS + PARTS  # the tiles behind the sums'
halves1 = types.Array(types.uint16, 1, "C")


@compiled(void(matrix, halves1), **SERIAL)
def parts_of_rows(x: Array, parts: Array) -> None:
    """Split every row of x, (R, D), into three parts, padded with zeros to whole tiles, in the order of loading.

    The order is: groups of sixteen rows (the last may have fewer); within a group, 32 inputs at a time; then the parts;
    then the rows. For infinity and NaN only the first part isn't 0.
    """
    R, D = x.shape
    blocks = (D + GROUP - 1) // GROUP
    some = np.zeros(GROUP, np.float32)
    for r in range(R):
        block = r // ROWS * ROWS
        rows = min(ROWS, R - block)
        start = (block * blocks * PARTS + r - block) * GROUP
        for b in range(blocks):
            width = min(GROUP, D - b * GROUP)
            for k in range(width):
                some[k] = x[r, b * GROUP + k]
            for k in range(width, GROUP):
                some[k] = 0
            first = parts[start : start + GROUP]
            second = parts[start + rows * GROUP : start + rows * GROUP + GROUP]
            third = parts[start + 2 * rows * GROUP : start + 2 * rows * GROUP + GROUP]
            for k in range(GROUP):
                bits = bits_of_float(some[k]) & np.int32(-65536)
                rest = some[k] - float_of_bits(bits)
                rest = rest if rest == rest else np.float32(0)
                more = bits_of_float(rest) & np.int32(-65536)
                first[k] = bits >> 16
                second[k] = more >> 16
                third[k] = bits_of_float(rest - float_of_bits(more)) >> 16
            start += PARTS * rows * GROUP


def some_rows(
    parts: Array,
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
    tiles = parts[r * PARTS * D : (r + rows) * PARTS * D].reshape(D // GROUP, PARTS, rows, GROUP)
    x = from_bits(tiles).sum(axis=1).swapaxes(0, 1).reshape(rows, D)[:, start:end]
    so_far = out[r : r + rows, f : f + TILE] if start > 0 else bias
    out[r : r + rows, f : f + TILE] = so_far + x @ unpacked(panels[n : n + 1, start // 2 : end // 2])[0]


@emits(some_rows, lambda parts, r, rows, panels, n, start, end, line, pace, bias, out, f: types.void)
def _some_rows(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    parts, r, rows, panels, n, start, end, line, pace, bias, out, f = arguments
    of_parts, of_panels, of_bias, of_out = (signature.args[k] for k in (0, 3, 9, 10))
    width = builder.mul(
        builder.extract_value(context.make_array(of_panels)(context, builder, panels).shape, 1), INDEX(2)
    )
    tile = builder.mul(rows, INDEX(GROUP))  # numbers of a tile of inputs
    before = builder.add(
        builder.mul(builder.mul(r, width), INDEX(PARTS)), builder.mul(builder.mul(start, rows), INDEX(PARTS))
    )
    first = address(context, builder, of_parts, parts, before)
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
        for part in range(PARTS):
            number = index_after(builder, builder.mul(d, INDEX(PARTS)), part)
            load_tile(builder, INPUTS + part, builder.gep(first, [builder.mul(number, tile)]), INDEX(BYTES_OF_ROW))
        with cgutils.for_range(builder, pace) as next_line:
            number = builder.add(builder.add(line, builder.mul(d, pace)), next_line.index)
            prefetch_line(builder, builder.gep(ahead, [builder.mul(number, INDEX(LINE_BYTES))]))
        for v in range(VECTORS):
            where = builder.gep(block, [index_after(builder, builder.mul(d, INDEX(GROUP // 2 * TILE)), v * ROWS)])
            load_tile(builder, WEIGHTS, where, INDEX(4 * TILE))
            for part in range(PARTS):
                multiply_halves(builder, v, INPUTS + part, WEIGHTS)
    for v, place in enumerate(places):
        store_tile(builder, v, place, out_stride)
    return context.get_dummy_value()


@register_jitable
def rows_by_tiles(n: int, parts: Array, panels: Array, bias: Array, out: Array, f: int) -> None:
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
            some_rows(parts, r, rows, panels, n, start, end, line, pace, bias, out, f)
    release()


@register_jitable
def panel_by_tiles(n: int, parts: Array, panels: Array, bias: Array, out: Array) -> None:
    """Write the product with the n-th panel, plus the bias, into its columns of ``out``. The last panel may have
    fewer.
    """
    R, F, f = len(out), out.shape[1], n * TILE
    if f + TILE <= F:
        rows_by_tiles(n, parts, panels, bias[f : f + TILE], out, f)
    else:
        biases, whole = np.zeros(TILE, np.float32), np.empty((R, TILE), np.float32)
        biases[: F - f] = bias[f:]
        rows_by_tiles(n, parts, panels, biases, whole, 0)
        put_columns(whole, out, f)

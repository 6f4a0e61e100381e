"""int8 products of many rows by AMX: sixteen rows of integers, in two bytes each, and 32 outputs at a time."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...weights.panels import TILE, unpacked
from .amx import (
    BYTES_OF_ROW,
    CACHED,
    ROWS,
    aligned,
    configure,
    load_tile,
    multiply_tiles,
    release,
    store_tile,
    zero_tile,
)
from .byte_products import combined, split
from .compiled import compiled
from .dot_products import FLOATS, INDEX, WORDS
from .int8_vectors import of_panel, round_row
from .kernel_types import PARALLEL, SERIAL, codes8, matrix, out2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD, one_thread, put_columns
from .simd import LANES, LINE_BYTES, address, broadcast, emits, index_after, load, multiply_add, prefetch_line, store

Array = np.ndarray
VECTORS = 2  # vectors of outputs at a time: the sums of two bytes of each fill half of the tiles
HIGHER, LOWER, WEIGHTS = 4, 5, 6  # the tiles behind the sums'
bytes1 = types.Array(types.uint8, 1, "C")


def some_rows(
    input_bytes: Array,
    r: int,
    rows: int,
    codes: Array,
    n: int,
    line: int,
    pace: int,
    steps: Array,
    scale: Array,
    moved: Array,
    bias: Array,
    out: Array,
    f: int,
) -> None:
    """Compute `int8_vectors.one_row` for up to 16 ``rows``, whose bytes `put_in_tiles` has arranged.

    The tiles must be configured for so many rows. ``pace`` lines are prefetched with each product of tiles, from the
    panel's cache line ``line`` on.
    """
    D = codes.shape[1] * 4
    tiles = input_bytes[r * 2 * D : (r + rows) * 2 * D].reshape(D // BYTES_OF_ROW, 2, rows, BYTES_OF_ROW)
    both = tiles.transpose(2, 1, 0, 3).reshape(rows, 2, D)
    sums = both.astype(np.int64) @ unpacked(codes[n : n + 1])[0].astype(np.int64)
    totals = (sums[:, 0] * 256 + sums[:, 1] - moved.astype(np.int64)).astype(np.float32)
    out[r : r + rows, f : f + TILE] = totals * (scale * steps[r : r + rows, None]) + bias


@emits(some_rows, lambda input_bytes, r, rows, codes, n, line, pace, steps, scale, moved, bias, out, f: types.void)
def _some_rows(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    input_bytes, r, rows, codes, n, line, pace, steps, scale, moved, bias, out, f = arguments
    of_bytes, of_codes, of_steps, of_out = (signature.args[k] for k in (0, 3, 7, 11))
    zero = INDEX(0)
    block = address(context, builder, of_codes, codes, n, zero, zero, zero)
    ahead = builder.bitcast(block, ir.IntType(8).as_pointer())
    fours = builder.extract_value(context.make_array(of_codes)(context, builder, codes).shape, 1)
    blocks = builder.udiv(fours, INDEX(BYTES_OF_ROW // 4))
    first = address(context, builder, of_bytes, input_bytes, builder.mul(builder.mul(r, fours), INDEX(8)))
    size = builder.mul(rows, INDEX(BYTES_OF_ROW))  # the size of a tile of bytes
    sums = cgutils.alloca_once(builder, ir.ArrayType(WORDS, 2 * VECTORS * ROWS))
    first_sum = builder.bitcast(sums, ir.IntType(32).as_pointer())
    for half, column in enumerate(range(0, TILE, VECTORS * LANES)):
        for tile in range(2 * VECTORS):
            zero_tile(builder, tile)
        with cgutils.for_range(builder, blocks) as loop:
            d = loop.index
            for digit, tile in enumerate((HIGHER, LOWER)):
                where = builder.gep(first, [builder.mul(index_after(builder, builder.mul(d, INDEX(2)), digit), size)])
                load_tile(builder, tile, where, INDEX(BYTES_OF_ROW))
            here = builder.mul(d, INDEX(BYTES_OF_ROW * TILE))
            for v in range(VECTORS):
                where = builder.gep(block, [index_after(builder, here, 4 * (column + v * LANES))])
                load_tile(builder, WEIGHTS + v, where, INDEX(4 * TILE))
                for digit, tile in enumerate((HIGHER, LOWER)):
                    multiply_tiles(builder, digit * VECTORS + v, tile, WEIGHTS + v)
            with cgutils.for_range(builder, pace) as next_line:
                step = builder.add(builder.mul(INDEX(half), blocks), d)
                number = builder.add(builder.add(line, builder.mul(step, pace)), next_line.index)
                prefetch_line(builder, builder.gep(ahead, [builder.mul(number, INDEX(LINE_BYTES))]))
        for tile in range(2 * VECTORS):
            store_tile(builder, tile, builder.gep(first_sum, [INDEX(tile * ROWS * LANES)]), INDEX(BYTES_OF_ROW))
        for v in range(VECTORS):
            outputs = INDEX(column + v * LANES)
            scales, offsets, biases = (
                load(builder, address(context, builder, kind, array, outputs), FLOATS)
                for kind, array in zip(signature.args[8:11], (scale, moved, bias), strict=True)
            )
            with cgutils.for_range(builder, rows) as loop:
                row = loop.index
                mine = builder.gep(first_sum, [builder.mul(row, INDEX(LANES))])
                higher, lower = (load(builder, mine, WORDS, (k * VECTORS + v) * ROWS * LANES) for k in (0, 1))
                total = combined(builder, higher, lower, offsets)
                step = builder.load(address(context, builder, of_steps, steps, builder.add(r, row)))
                each = builder.fmul(scales, broadcast(builder, step, FLOATS))
                place = address(context, builder, of_out, out, builder.add(r, row), builder.add(f, outputs))
                store(builder, multiply_add(builder, total, each, biases), place)
    return context.get_dummy_value()


@register_jitable
def put_in_tiles(levels: Array, input_bytes: Array, r: int, R: int) -> None:
    """Split the r-th of R rows, (D,) int16, into bytes, and store them in the order in which tiles are loaded.

    The order is: groups of sixteen rows (the last may have fewer); within a group, 64 inputs at a time; then the two
    bytes, the high one first; then the rows.
    """
    D, block = len(levels), r // ROWS * ROWS
    rows = min(ROWS, R - block)
    higher = block * 2 * D + (r - block) * BYTES_OF_ROW
    for first in range(0, D, BYTES_OF_ROW):
        some, lower = levels[first : first + BYTES_OF_ROW], higher + rows * BYTES_OF_ROW
        split(some, input_bytes[higher : higher + BYTES_OF_ROW], input_bytes[lower : lower + BYTES_OF_ROW])
        higher = lower + rows * BYTES_OF_ROW


@register_jitable
def rows_by_tiles(
    n: int, input_bytes: Array, steps: Array, codes: Array, scale: Array, moved: Array, bias: Array, out: Array, f: int
) -> None:
    """Write all rows times the n-th panel into TILE columns of ``out``, from the f-th on; the inputs fill whole
    tiles.
    """
    R, lines = len(out), codes.shape[1] * 4 * TILE // LINE_BYTES
    passes, products = (R + ROWS - 1) // ROWS, codes.shape[1] // 8
    pace = (lines + passes * products - 1) // (passes * products)
    for k in range(passes):
        r, rows = k * ROWS, min(ROWS, R - k * ROWS)
        if k == 0 or rows < ROWS:
            configure(rows, WEIGHTS)
        line = lines + k * pace * products if passes > 1 else AHEAD // LINE_BYTES
        some_rows(input_bytes, r, rows, codes, n, line, pace, steps, scale, moved, bias, out, f)
    release()


@compiled(void(matrix, bytes1, types.float32[::1]), **SERIAL)
def quantize_in_tiles(x: Array, input_bytes: Array, steps: Array) -> None:
    """Quantize every row of x to integers of two bytes, arranged by `put_in_tiles`, and return each row's step."""
    levels = np.empty(x.shape[1], np.int16)
    for r in range(len(x)):
        steps[r] = round_row(x[r], levels)
        put_in_tiles(levels, input_bytes, r, len(x))


@register_jitable(**SERIAL)
def int8_tile(n: int, input_bytes: Array, steps: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Run `by_tiles` for the n-th panel, given each row's bytes and step."""
    f, F = n * TILE, out.shape[1]
    scale, moved, biases = of_panel(n, scales, bias)
    if f + TILE <= F:
        rows_by_tiles(n, input_bytes, steps, codes, scale, moved, biases, out, f)
    else:
        whole = np.empty((len(out), TILE), np.float32)
        rows_by_tiles(n, input_bytes, steps, codes, scale, moved, biases, whole, 0)
        put_columns(whole, out, f)


@compiled(void(matrix, codes8, matrix, vector, out2), **PARALLEL)
def by_tiles(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `int8.int8_panels` for inputs that fill whole tiles, for as many rows at a time as fit in the cache."""
    R, D = x.shape
    some = max(1, CACHED // (2 * D * ROWS)) * ROWS
    input_bytes, steps = aligned(min(R, some) * 2 * D), np.empty(min(R, some), np.float32)
    for start in range(0, R, some):
        end = min(R, start + some)
        if one_thread(end - start):
            quantize_in_tiles(x[start:end], input_bytes, steps)
        else:
            for share in prange((end - start + ROWS - 1) // ROWS):
                first, last = share * ROWS, min(end - start, share * ROWS + ROWS)
                quantize_in_tiles(x[start + first : start + last], input_bytes[first * 2 * D :], steps[first:last])
        if threads_here() == 1:
            for n in range(len(codes)):
                int8_tile(n, input_bytes, steps, codes, scales, bias, out[start:end])
        else:
            for n in prange(len(codes)):
                int8_tile(np.int64(n), input_bytes, steps, codes, scales, bias, out[start:end])

"""int8 products by vector instructions: a few rows of integers, in two bytes each, and 64 outputs at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.panels import INT8_STEP, TILE, unpacked
from .byte_products import OFFSET, add_products_of_bytes, combined, split
from .compiled import compiled
from .dot_products import FLOATS, INDEX, WORDS
from .kernel_types import PARALLEL, SERIAL, bits_of_float, codes8, float_of_bits, matrix, out2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, ROWS_PER_TASK, lines_to_prefetch, one_thread, prefetch_step, put_columns
from .simd import (
    AVX512,
    LANES,
    LINE_BYTES,
    accumulate,
    address,
    broadcast,
    emits,
    index_after,
    load,
    multiply_add,
    prefetch,
    store,
)

Array = np.ndarray
VECTORS = 4  # vectors of outputs at a time
ROWS_PER_PASS = 3 if AVX512 else 1  # rows at a time
bytes3 = types.Array(types.uint8, 3, "C")


@register_jitable
def round_row(x: Array, levels: Array) -> float:
    """Round x to integer multiples of a step, into ``levels``, and return the step: INT8_STEP of the largest entry's
    size.

    The bits of magnitudes are ordered as integers, with infinity and NaN last, so the step is not finite where an entry
    isn't.
    """
    largest = np.int32(0)
    for d in range(len(x)):
        largest = max(largest, bits_of_float(x[d]) & np.int32(0x7FFFFFFF))
    step = float_of_bits(largest) * INT8_STEP
    per_step = np.float32(1) / step if step > 0 else np.float32(0)
    for d in range(len(x)):
        levels[d] = np.int16(np.rint(x[d] * per_step))
    return step


@compiled(void(matrix, bytes3, types.float32[::1]), **SERIAL)
def quantize_rows(x: Array, input_bytes: Array, steps: Array) -> None:
    """Quantize every row of x to integers, each split into two bytes.

    This is a separate function because Numba would turn its loops into parallel regions inside a parallel one.
    """
    D = x.shape[1]
    levels = np.empty(D, np.int16)
    for r in range(len(x)):
        steps[r] = round_row(x[r], levels)
        split(levels, input_bytes[r, 0], input_bytes[r, 1])
        for d in range(D, input_bytes.shape[2]):
            input_bytes[r, 0, d] = input_bytes[r, 1, d] = 0


def _step(rows: int) -> Callable[..., None]:
    """Return the product of so many rows, from the r-th on, with the n-th panel: it writes to ``out`` from column f on.

    ``steps`` are the rows' quantization steps; ``scale``, ``moved`` and ``bias``, (TILE,), are the panel's scales, what
    OFFSET has added to its sums, and its biases. ``line``, ``last`` and ``pace`` come from
    `panel_passes.lines_to_prefetch`.
    """

    def step(
        input_bytes: Array,
        r: int,
        codes: Array,
        n: int,
        line: int,
        last: int,
        pace: int,
        steps: Array,
        scale: Array,
        moved: Array,
        bias: Array,
        out: Array,
        f: int,
    ) -> None:
        sums = input_bytes[r : r + rows].astype(np.int64) @ unpacked(codes[n : n + 1])[0].astype(np.int64)
        totals = (sums[:, 0] * 256 + sums[:, 1] - moved.astype(np.int64)).astype(np.float32)
        out[r : r + rows, f : f + TILE] = totals * (scale * steps[r : r + rows, None]) + bias

    @emits(step, lambda input_bytes, r, codes, n, line, last, pace, steps, scale, moved, bias, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        input_bytes, r, codes, n, line, last, pace, steps, scale, moved, bias, out, f = arguments
        of_bytes, of_codes, of_out = signature.args[0], signature.args[2], signature.args[11]
        zero = INDEX(0)
        inputs = [
            address(context, builder, of_bytes, input_bytes, index_after(builder, r, row), INDEX(digit), zero)
            for row in range(rows)
            for digit in (0, 1)
        ]
        block = address(context, builder, of_codes, codes, n, zero, zero, zero)
        fours = builder.extract_value(context.make_array(of_codes)(context, builder, codes).shape, 1)
        for column in range(0, TILE, VECTORS * LANES):

            def add(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                here = builder.gep(block, [index_after(builder, builder.mul(d, INDEX(4 * TILE)), 4 * column)])
                if rows == 1:
                    prefetch(builder, here, VECTORS * LANES * 4, AHEAD_ONE_ROW)
                elif column == 0:
                    prefetch_step(builder, block, d, line, last, pace)
                weights, sums = [load(builder, here, WORDS, v * LANES * 4) for v in range(VECTORS)], list(sums)
                for k, place in enumerate(inputs):
                    four = builder.gep(place, [builder.mul(d, INDEX(4))])
                    four = builder.load(builder.bitcast(four, ir.IntType(32).as_pointer()), align=1)
                    each = broadcast(builder, four, WORDS)
                    for v, weight in enumerate(weights):
                        number = k * VECTORS + v
                        sums[number] = add_products_of_bytes(builder, sums[number], each, weight)
                return sums

            zeros = [ir.Constant(WORDS, None)] * (len(inputs) * VECTORS)
            sums = accumulate(builder, zeros, zero, fours, INDEX(1), add)
            for v in range(VECTORS):
                outputs = INDEX(column + v * LANES)
                scales, offsets, biases = (
                    load(builder, address(context, builder, kind, array, outputs), FLOATS)
                    for kind, array in zip(signature.args[8:11], (scale, moved, bias), strict=True)
                )
                for row in range(rows):
                    higher, lower = (sums[(2 * row + k) * VECTORS + v] for k in (0, 1))
                    total = combined(builder, higher, lower, offsets)
                    mine = builder.load(
                        address(context, builder, signature.args[7], steps, index_after(builder, r, row))
                    )
                    each = builder.fmul(scales, broadcast(builder, mine, FLOATS))
                    place = address(
                        context, builder, of_out, out, index_after(builder, r, row), builder.add(f, outputs)
                    )
                    store(builder, multiply_add(builder, total, each, biases), place)
        return context.get_dummy_value()

    return step


STEPS = {rows: _step(rows) for rows in range(1, ROWS_PER_PASS + 1)}
one_row, two_rows, three_rows = (STEPS.get(rows, STEPS[1]) for rows in (1, 2, 3))


@register_jitable
def int8_rows(
    n: int, input_bytes: Array, steps: Array, codes: Array, scale: Array, moved: Array, bias: Array, out: Array, f: int
) -> None:
    """Write the products of all rows with the n-th panel into TILE columns of ``out``, from the f-th on."""
    R = len(out)
    each = TILE * 4 // LINE_BYTES
    r = 0
    while r < R:
        rows = min(R - r, ROWS_PER_PASS)
        line, last, pace = lines_to_prefetch(r, rows, R, ROWS_PER_PASS, codes.shape[1] * each, each)
        if rows == 1:
            one_row(input_bytes, r, codes, n, line, last, pace, steps, scale, moved, bias, out, f)
        elif rows == 2:
            two_rows(input_bytes, r, codes, n, line, last, pace, steps, scale, moved, bias, out, f)
        else:
            three_rows(input_bytes, r, codes, n, line, last, pace, steps, scale, moved, bias, out, f)
        r += rows


@register_jitable
def of_panel(n: int, scales: Array, bias: Array) -> Array:
    """Return the n-th panel's scales, what OFFSET has added to its sums, and its biases: (3, TILE)."""
    of_outputs, f = np.zeros((3, TILE), np.float32), n * TILE
    for k in range(min(TILE, len(bias) - f)):
        of_outputs[0, k], of_outputs[1, k] = scales[0, f + k], scales[1, f + k] * np.float32(OFFSET)
        of_outputs[2, k] = bias[f + k]
    return of_outputs


@register_jitable(**SERIAL)
def int8_panel(n: int, input_bytes: Array, steps: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Run `by_vectors` for the n-th panel, given each row's bytes and step."""
    R, f, F = len(out), n * TILE, out.shape[1]
    scale, moved, biases = of_panel(n, scales, bias)
    if f + TILE <= F:
        int8_rows(n, input_bytes, steps, codes, scale, moved, biases, out, f)
    else:
        whole = np.empty((R, TILE), np.float32)
        int8_rows(n, input_bytes, steps, codes, scale, moved, biases, whole, 0)
        put_columns(whole, out, f)


@compiled(void(matrix, codes8, matrix, vector, out2), **PARALLEL)
def by_vectors(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `int8.int8_panels` by vectors."""
    R = len(x)
    input_bytes, steps = np.empty((R, 2, codes.shape[1] * 4), np.uint8), np.empty(R, np.float32)
    if one_thread(R):
        quantize_rows(x, input_bytes, steps)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            first, last = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            quantize_rows(x[first:last], input_bytes[first:last], steps[first:last])
    if threads_here() == 1:
        for n in range(len(codes)):
            int8_panel(n, input_bytes, steps, codes, scales, bias, out)
    else:
        for n in prange(len(codes)):
            int8_panel(np.int64(n), input_bytes, steps, codes, scales, bias, out)

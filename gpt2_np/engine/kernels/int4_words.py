"""int4 products by AVX-512: a group's products are summed in words of 32 bits.

Four products of an output are added at a time, by one instruction where the processor has VNNI.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.panels import GROUP, INT4_STEP, TILE, from_bits, unpacked
from .byte_products import add_products_of_bytes
from .compiled import compiled
from .dot_products import FLOATS, INDEX, WORDS
from .int8_vectors import round_group
from .kernel_types import PARALLEL, SERIAL, codes4, grids, matrix, out2, threads_here, vector
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
    load_bfloat16,
    multiply_add,
    prefetch,
    store,
)

Array = np.ndarray
EIGHTS = GROUP // 8  # loop steps of a group: eight inputs each
VECTORS = 4 if AVX512 else 2  # vectors of outputs at a time
ROWS_PER_PASS = 3 if AVX512 else 2  # rows at a time
levels2 = types.Array(types.int8, 2, "C")
starts2 = types.Array(types.int32, 2, "C")


@compiled(void(matrix, levels2, starts2, out2, out2), **SERIAL)
def round_groups(x: Array, levels: Array, starts: Array, steps: Array, sums: Array) -> None:
    """Quantize every group of x, and compute what `int4_panels` needs of each: its initial sum, its step and its total.

    This is a separate function because Numba would make each group's sum a parallel region inside a parallel one.
    """
    R, D = x.shape
    group = np.empty(GROUP, np.int16)
    for r in range(R):
        for d in range(D, levels.shape[1]):
            levels[r, d] = 0
        for g in range(steps.shape[1]):
            first = g * GROUP
            size = min(D - first, GROUP)
            steps[r, g] = round_group(x[r, first : first + size], INT4_STEP, group[:size])
            total = np.int32(0)
            for d in range(size):
                levels[r, first + d] = group[d]
                total += np.int32(group[d])
            starts[r, g], sums[r, g] = -8 * total, np.float32(total) * steps[r, g]


def _step(rows: int) -> Callable[..., None]:
    """Return the product of so many rows, from the r-th on, with the n-th panel: it writes to ``out`` from column f on.

    ``starts``, ``steps`` and ``sums`` come from `round_groups`. A code stands for its distance from 8, so a group's sum
    of products starts at −8 times the sum of its inputs. ``line``, ``last`` and ``pace`` come from
    `panel_passes.lines_to_prefetch`.
    """

    def step(
        levels: Array,
        starts: Array,
        steps: Array,
        sums: Array,
        r: int,
        codes: Array,
        scales: Array,
        n: int,
        line: int,
        last: int,
        pace: int,
        out: Array,
        f: int,
    ) -> None:
        some = slice(r, r + rows)
        scale, middle = from_bits(scales[n, :, 0]), from_bits(scales[n, :, 1])
        whole = unpacked(codes[n : n + 1])[0].reshape(-1, GROUP, TILE)
        whole = np.einsum("rgd,gdo->rgo", levels[some].reshape(rows, -1, GROUP).astype(np.float32), whole)
        both = scale * (whole * steps[some, :, None]) + middle * sums[some, :, None]
        out[some, f : f + TILE] = both.sum(axis=1)

    @emits(step, lambda levels, starts, steps, sums, r, codes, scales, n, line, last, pace, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        levels, starts, steps, sums, r, codes, scales, n, line, last, pace, out, f = arguments
        of_levels, of_starts, of_steps, of_sums, _, of_codes, of_scales, *_, of_out, _ = signature.args
        zero, row_numbers = INDEX(0), [index_after(builder, r, row) for row in range(rows)]
        inputs = [address(context, builder, of_levels, levels, row, zero) for row in row_numbers]
        block = address(context, builder, of_codes, codes, n, zero, zero, zero)
        groups = builder.extract_value(context.make_array(of_scales)(context, builder, scales).shape, 1)

        def one(kind: types.Array, array: Value, row: Value, g: Value, vector: ir.VectorType) -> Value:
            return broadcast(builder, builder.load(address(context, builder, kind, array, row, g)), vector)

        def four(place: Value, first: Value) -> Value:
            word = builder.bitcast(builder.gep(place, [first]), ir.IntType(32).as_pointer())
            return broadcast(builder, builder.load(word, align=1), WORDS)

        for column in range(0, TILE, VECTORS * LANES):

            def add_group(g: Value, totals: list[Value], column: int = column) -> list[Value]:
                whole = [one(of_starts, starts, row, g, WORDS) for row in row_numbers for _ in range(VECTORS)]
                for eight in range(EIGHTS):
                    j = index_after(builder, builder.mul(g, INDEX(EIGHTS)), eight)
                    here = builder.gep(block, [index_after(builder, builder.mul(j, INDEX(4 * TILE)), 4 * column)])
                    if rows == 1:
                        prefetch(builder, here, VECTORS * LANES * 4, AHEAD_ONE_ROW)
                    elif column == 0:
                        prefetch_step(builder, block, j, line, last, pace)
                    both = [load(builder, here, WORDS, v * LANES * 4) for v in range(VECTORS)]
                    first = builder.mul(j, INDEX(8))
                    for half in (0, 1):
                        shifted = [builder.lshr(one, WORDS([4] * LANES)) if half else one for one in both]
                        weights = [builder.and_(one, WORDS([0x0F0F0F0F] * LANES)) for one in shifted]
                        for row, place in enumerate(inputs):
                            each = four(place, index_after(builder, first, 4 * half))
                            for v, weight in enumerate(weights):
                                k = row * VECTORS + v
                                whole[k] = add_products_of_bytes(builder, whole[k], weight, each)
                totals = list(totals)
                for v in range(VECTORS):
                    outputs = INDEX(column + v * LANES)
                    scale, middle = (
                        load_bfloat16(
                            builder, address(context, builder, of_scales, scales, n, g, INDEX(which), outputs)
                        )
                        for which in (0, 1)
                    )
                    for row, number in enumerate(row_numbers):
                        k = row * VECTORS + v
                        size = one(of_steps, steps, number, g, FLOATS)
                        wide = builder.fmul(builder.sitofp(whole[k], FLOATS), size)
                        total = multiply_add(builder, scale, wide, totals[k])
                        totals[k] = multiply_add(builder, middle, one(of_sums, sums, number, g, FLOATS), total)
                return totals

            zeros = [ir.Constant(FLOATS, None)] * (rows * VECTORS)
            totals = accumulate(builder, zeros, zero, groups, INDEX(1), add_group)
            for k, total in enumerate(totals):
                row, v = divmod(k, VECTORS)
                place = address(
                    context, builder, of_out, out, row_numbers[row], index_after(builder, f, column + v * LANES)
                )
                store(builder, total, place)
        return context.get_dummy_value()

    return step


STEPS = {rows: _step(rows) for rows in range(1, ROWS_PER_PASS + 1)}
one_row, two_rows, three_rows = (STEPS.get(rows, STEPS[1]) for rows in (1, 2, 3))


@register_jitable
def int4_rows(
    n: int, levels: Array, starts: Array, steps: Array, sums: Array, codes: Array, scales: Array, out: Array, f: int
) -> None:
    """Write the products of all rows with the n-th panel, without the bias, into TILE columns of ``out`` from f on."""
    R = len(levels)
    each = TILE * 4 // LINE_BYTES
    r = 0
    while r < R:
        rows = min(R - r, ROWS_PER_PASS)
        line, last, pace = lines_to_prefetch(r, rows, R, ROWS_PER_PASS, codes.shape[1] * each, each)
        if rows == 1:
            one_row(levels, starts, steps, sums, r, codes, scales, n, line, last, pace, out, f)
        elif rows == 2:
            two_rows(levels, starts, steps, sums, r, codes, scales, n, line, last, pace, out, f)
        else:
            three_rows(levels, starts, steps, sums, r, codes, scales, n, line, last, pace, out, f)
        r += rows


@compiled(void(types.int64, levels2, starts2, out2, out2, codes4, grids, vector, out2), **SERIAL)
def int4_panel(
    n: int,
    levels: Array,
    starts: Array,
    steps: Array,
    sums: Array,
    codes: Array,
    scales: Array,
    bias: Array,
    out: Array,
) -> None:
    """Run `int4_panels` for the n-th panel, given what `round_groups` made of the inputs."""
    R, f, F = len(levels), n * TILE, out.shape[1]
    outputs = min(TILE, F - f)
    if outputs < TILE:
        whole = np.empty((R, TILE), np.float32)
        int4_rows(n, levels, starts, steps, sums, codes, scales, whole, 0)
        put_columns(whole, out, f)
    else:
        int4_rows(n, levels, starts, steps, sums, codes, scales, out, f)
    for r in range(R):
        for k in range(outputs):
            out[r, f + k] += bias[f + k]


@compiled(void(matrix, codes4, grids, vector, out2), **PARALLEL)
def int4_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x times int4 weights, plus the bias, into ``out``: (R, D), codes and scales as in `weights.panels` → (R,
    F).
    """
    R, groups = len(x), scales.shape[1]
    levels, starts = np.empty((R, groups * GROUP), np.int8), np.empty((R, groups), np.int32)
    steps, sums = np.empty((R, groups), np.float32), np.empty((R, groups), np.float32)
    if one_thread(R):
        round_groups(x, levels, starts, steps, sums)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            a, b = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            round_groups(x[a:b], levels[a:b], starts[a:b], steps[a:b], sums[a:b])
    if threads_here() == 1:
        for n in range(len(codes)):
            int4_panel(n, levels, starts, steps, sums, codes, scales, bias, out)
    else:
        for n in prange(len(codes)):
            int4_panel(np.int64(n), levels, starts, steps, sums, codes, scales, bias, out)

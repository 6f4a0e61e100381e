"""int4 products without AVX-512: a group's products are summed in 16 bits, the halves of a word.

A code is at most 15 and an input at most 127 in size, so the sums of eight pairs of products are at most 30,480 and fit
in 16 bits. AVX2 multiplies unsigned by signed bytes and adds the pairs in one instruction, and another one adds two
vectors of such sums. A group's total is exact, so the bits are those of `int4_words`.

A row's groups are records: the levels of 32 inputs, and what else a group needs of them. All of a row is found by one
address, which matters where 16 general registers hold the addresses of several rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...weights.panels import GROUP, INT4_STEP, TILE, from_bits
from .byte_products import add_halves, products_of_pairs
from .compiled import compiled
from .dot_products import FLOATS, HALVES, INDEX, WORDS
from .kernel_types import PARALLEL, SERIAL, codes4, grids, matrix, out2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, ROWS_PER_TASK, lines_to_prefetch, one_thread, prefetch_step, put_columns
from .simd import (
    AVX2,
    LANES,
    LINE_BYTES,
    accumulate,
    address,
    broadcast,
    emits,
    load,
    load_bfloat16,
    multiply_add,
    prefetch,
    store,
)

Array = np.ndarray
EIGHTS = GROUP // 8  # loop steps of a group: eight inputs each
# A record, in words: the levels, four in each, their sum times −8, and as float32 their step and their sum times that.
START, STEP, SUM, RECORD = GROUP // 4, GROUP // 4 + 1, GROUP // 4 + 2, GROUP // 4 + 3
# How many vectors of outputs so many rows take at a time: as many sums as the registers hold, beside the weights.
VECTORS = {1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2} if AVX2 else {1: 2, 2: 2}
ROWS_PER_PASS = max(VECTORS)
records3 = types.Array(types.int32, 3, "C")


def round_group(x: Array, r: int, d: int, records: Array, n: int, g: int) -> None:
    """Quantize GROUP inputs of ``x[r]``, from the d-th on, into the record ``records[n, g]``.

    The bits of magnitudes are ordered as integers, with infinity and NaN last, so the step is not finite where an input
    isn't.
    """
    group, record = x[r, d : d + GROUP], records[n, g]
    step = (group.view(np.int32) & 0x7FFFFFFF).max().view(np.float32) * INT4_STEP
    levels = np.rint(group * (np.float32(1) / step if step > 0 else np.float32(0))).astype(np.int16)
    record[:START] = levels.astype(np.int8).view(np.int32)
    record[START] = -8 * levels.sum(dtype=np.int32)
    record[STEP:] = np.array([step, levels.sum(dtype=np.float32) * step], np.float32).view(np.int32)


@emits(round_group, lambda x, r, d, records, n, g: types.void)
def _round_group(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    x, r, d, records, n, g = arguments
    number, halves = ir.IntType(32), ir.VectorType(ir.IntType(16), LANES)
    where = address(context, builder, signature.args[0], x, r, d)
    record = address(context, builder, signature.args[3], records, n, g, INDEX(0))
    group = [load(builder, where, FLOATS, v * LANES) for v in range(GROUP // LANES)]

    def over_lanes(operation: str, vectors: list[Value], join: Callable[[Value, Value], Value]) -> Value:
        kind = ir.FunctionType(number, [WORDS])
        intrinsic = builder.module.declare_intrinsic(f"llvm.vector.reduce.{operation}.v{LANES}i32", (), kind)
        return builder.call(intrinsic, [reduce(join, vectors)])

    def larger(a: Value, b: Value) -> Value:
        return builder.select(builder.icmp_signed(">", a, b), a, b)

    sizes = [builder.and_(builder.bitcast(one, WORDS), WORDS([0x7FFFFFFF] * LANES)) for one in group]
    largest = builder.bitcast(over_lanes("smax", sizes, larger), FLOATS.element)
    step = builder.fmul(largest, FLOATS.element(float(INT4_STEP)))
    positive = builder.fcmp_ordered(">", step, FLOATS.element(0.0))
    per_step = builder.select(positive, builder.fdiv(FLOATS.element(1.0), step), FLOATS.element(0.0))
    each = broadcast(builder, per_step, FLOATS)
    rint = builder.module.declare_intrinsic(f"llvm.rint.v{LANES}f32", (), ir.FunctionType(FLOATS, [FLOATS]))
    levels = [builder.call(rint, [builder.fmul(one, each)]) for one in group]
    levels = [builder.trunc(builder.fptosi(one, WORDS), halves) for one in levels]
    bytes_ = builder.bitcast(record, ir.IntType(8).as_pointer())
    for v, level in enumerate(levels):
        store(builder, builder.trunc(level, ir.VectorType(ir.IntType(8), LANES)), bytes_, v * LANES)
    total = over_lanes("add", [builder.sext(level, WORDS) for level in levels], builder.add)
    share = builder.fmul(builder.sitofp(total, FLOATS.element), step)
    others = (builder.mul(total, number(-8)), builder.bitcast(step, number), builder.bitcast(share, number))
    for k, one in enumerate(others):
        builder.store(one, builder.gep(record, [INDEX(START + k)]))
    return context.get_dummy_value()


@compiled(void(matrix, records3), **SERIAL)
def round_groups(x: Array, records: Array) -> None:
    """Quantize every group of x, (R, D), into a record: (R, groups, RECORD) int32. Missing inputs are zeros.

    This is a separate function because Numba would make each group's sum a parallel region inside a parallel one.
    """
    R, D = x.shape
    rest = np.zeros((1, GROUP), np.float32)
    for r in range(R):
        for g in range(D // GROUP):
            round_group(x, r, g * GROUP, records, r, g)
        if D % GROUP > 0:
            for d in range(D % GROUP):
                rest[0, d] = x[r, D - D % GROUP + d]
            round_group(rest, 0, 0, records, r, D // GROUP)


def _step(rows: int) -> Callable[..., None]:
    """Return the product of so many rows, from the r-th on, with the n-th panel: it writes to ``out`` from column f on.

    ``records`` come from `round_groups`; ``bias``, (TILE,), is the panel's. A code stands for its distance from 8, so a
    group's sum of products starts at −8 times the sum of its levels. ``line``, ``last`` and ``pace`` come from
    `panel_passes.lines_to_prefetch`.
    """

    def step(
        records: Array,
        r: int,
        codes: Array,
        scales: Array,
        n: int,
        line: int,
        last: int,
        pace: int,
        bias: Array,
        out: Array,
        f: int,
    ) -> None:
        words = records[r : r + rows]
        levels = np.ascontiguousarray(words[..., :START]).view(np.int8).astype(np.int32)
        both = codes[n].reshape(-1, EIGHTS, TILE, 4)
        inputs = np.stack([both & 15, both >> 4], axis=2).swapaxes(3, 4).reshape(-1, GROUP, TILE).astype(np.int32)
        whole = np.einsum("rgd,gdo->rgo", levels, inputs) + words[..., START, None]
        steps, sums = (np.ascontiguousarray(words[..., k, None]).view(np.float32) for k in (STEP, SUM))
        scale, middle = (from_bits(scales[n, :, which]) for which in (0, 1))
        total = scale * (whole.astype(np.float32) * steps) + middle * sums
        out[r : r + rows, f : f + TILE] = total.sum(axis=1) + bias

    @emits(step, lambda records, r, codes, scales, n, line, last, pace, bias, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        records, r, codes, scales, n, line, last, pace, bias, out, f = arguments
        of_records, _, of_codes, of_scales, *_, of_bias, of_out, _ = signature.args
        zero, vectors = INDEX(0), VECTORS[rows]
        numbers = [builder.add(r, INDEX(row)) for row in range(rows)]
        places = [address(context, builder, of_records, records, row, zero, zero) for row in numbers]
        block = address(context, builder, of_codes, codes, n, zero, zero, zero)
        grid = address(context, builder, of_scales, scales, n, zero, zero, zero)
        groups = builder.extract_value(context.make_array(of_scales)(context, builder, scales).shape, 1)

        def word(place: Value, g: Value, k: Value, vector: ir.VectorType) -> Value:
            where = builder.gep(place, [builder.add(builder.mul(g, INDEX(RECORD)), k)])
            return broadcast(builder, builder.load(builder.bitcast(where, vector.element.as_pointer())), vector)

        def halves_of(codes: Value) -> list[Value]:
            low = WORDS([0x0F0F0F0F] * LANES)
            return [builder.and_(codes, low), builder.and_(builder.lshr(codes, WORDS([4] * LANES)), low)]

        width = vectors * LANES
        with cgutils.for_range_slice(builder, zero, INDEX(TILE), INDEX(width), inc=True) as (column, _):
            final = builder.select(builder.icmp_signed("==", column, zero), last, zero)

            def add_group(g: Value, totals: list[Value]) -> list[Value]:
                def add_eight(eight: Value, sums: list[Value]) -> list[Value]:
                    j = builder.add(builder.mul(g, INDEX(EIGHTS)), eight)
                    here = builder.gep(block, [builder.mul(builder.add(builder.mul(j, INDEX(TILE)), column), INDEX(4))])
                    if rows == 1:
                        prefetch(builder, here, width * 4, AHEAD_ONE_ROW)
                    else:
                        prefetch_step(builder, block, j, line, final, pace)
                    weights: list[list[Value]] = []
                    sums = list(sums)
                    for row, place in enumerate(places):
                        first = builder.mul(eight, INDEX(2))
                        inputs = [word(place, g, builder.add(first, INDEX(half)), WORDS) for half in (0, 1)]
                        for v in range(vectors):
                            if row == 0:  # as late as possible: one row's weights are not kept
                                weights.append(halves_of(load(builder, here, WORDS, v * LANES * 4)))
                            lower, upper = (products_of_pairs(builder, weights[v][k], inputs[k]) for k in (0, 1))
                            k = row * vectors + v
                            sums[k] = builder.add(sums[k], builder.add(lower, upper))
                    return sums

                zeros = [ir.Constant(HALVES, None)] * (rows * vectors)
                sums = accumulate(builder, zeros, zero, INDEX(EIGHTS), INDEX(1), add_eight)
                here = builder.gep(grid, [builder.add(builder.mul(g, INDEX(2 * TILE)), column)])
                totals = list(totals)
                for v in range(vectors):
                    scale, middle = (load_bfloat16(builder, here, which * TILE + v * LANES) for which in (0, 1))
                    for row, place in enumerate(places):
                        k = row * vectors + v
                        whole = add_halves(builder, sums[k], word(place, g, INDEX(START), WORDS))
                        wide = builder.fmul(builder.sitofp(whole, FLOATS), word(place, g, INDEX(STEP), FLOATS))
                        total = multiply_add(builder, scale, wide, totals[k])
                        totals[k] = multiply_add(builder, middle, word(place, g, INDEX(SUM), FLOATS), total)
                return totals

            zeros = [ir.Constant(FLOATS, None)] * (rows * vectors)
            totals = accumulate(builder, zeros, zero, groups, INDEX(1), add_group)
            biases = address(context, builder, of_bias, bias, column)
            for k, total in enumerate(totals):
                row, v = divmod(k, vectors)
                place = address(context, builder, of_out, out, numbers[row], builder.add(f, column))
                store(builder, builder.fadd(total, load(builder, biases, FLOATS, v * LANES)), place, v * LANES)
        return context.get_dummy_value()

    return step


STEPS = {rows: _step(rows) for rows in VECTORS}
one_row, two_rows = STEPS[1], STEPS[2]
three_rows, four_rows, five_rows, six_rows = (STEPS.get(rows, two_rows) for rows in (3, 4, 5, 6))


@register_jitable
def int4_rows(n: int, records: Array, codes: Array, scales: Array, bias: Array, out: Array, f: int) -> None:
    """Write the products of all rows with the n-th panel, plus its bias, into TILE columns of ``out`` from f on."""
    R = len(records)
    each = TILE * 4 // LINE_BYTES
    r = 0
    while r < R:
        rows = min(R - r, ROWS_PER_PASS)
        line, last, pace = lines_to_prefetch(r, rows, R, ROWS_PER_PASS, codes.shape[1] * each, each)
        if rows == 1:
            one_row(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 2:
            two_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 3:
            three_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 4:
            four_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        elif rows == 5:
            five_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        else:
            six_rows(records, r, codes, scales, n, line, last, pace, bias, out, f)
        r += rows


@compiled(void(types.int64, records3, codes4, grids, vector, out2), **SERIAL)
def int4_panel(n: int, records: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Run `int4_panels` for the n-th panel, given what `round_groups` made of the inputs."""
    f, F = n * TILE, out.shape[1]
    if f + TILE <= F:
        int4_rows(n, records, codes, scales, bias[f : f + TILE], out, f)
    else:
        whole, biases = np.empty((len(records), TILE), np.float32), np.zeros(TILE, np.float32)
        for k in range(F - f):
            biases[k] = bias[f + k]
        int4_rows(n, records, codes, scales, biases, whole, 0)
        put_columns(whole, out, f)


@compiled(void(matrix, codes4, grids, vector, out2), **PARALLEL)
def int4_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x times int4 weights, plus the bias, into ``out``: (R, D), codes and scales as in `weights.panels` → (R,
    F).
    """
    R = len(x)
    records = np.empty((R, scales.shape[1], RECORD), np.int32)
    if one_thread(R):
        round_groups(x, records)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            a, b = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            round_groups(x[a:b], records[a:b])
    if threads_here() == 1:
        for n in range(len(codes)):
            int4_panel(n, records, codes, scales, bias, out)
    else:
        for n in prange(len(codes)):
            int4_panel(np.int64(n), records, codes, scales, bias, out)

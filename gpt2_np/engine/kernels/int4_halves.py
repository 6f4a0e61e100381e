"""int4 products without AVX-512: a group's products are summed in 16 bits, the halves of a word.

A code is at most 15 and an input at most 127 in size, so the sums of eight pairs of products are at most 30,480 and fit
in 16 bits. AVX2 multiplies unsigned by signed bytes and adds the pairs in one instruction, and another one adds two
vectors of such sums. A group's total is exact, so the bits are those of `int4_words`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from ...weights.panels import TILE
from .byte_products import add_halves, products_of_pairs
from .dot_products import FLOATS, HALVES, INDEX, WORDS
from .int4_inputs import EIGHTS, START, STEP, SUM, product_of_groups, word
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, prefetch_step
from .simd import AVX2, LANES, accumulate, address, emits, load, load_bfloat16, multiply_add, prefetch, store

Array = np.ndarray
# How many vectors of outputs so many rows take at a time: as many sums as the registers hold, beside the weights.
VECTORS = {1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2} if AVX2 else {1: 2, 2: 2}


def _step(rows: int) -> Callable[..., None]:
    """Return `int4_inputs.product_of_groups` for so many rows. ``line``, ``last`` and ``pace`` come from
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
        product_of_groups(records, r, rows, codes, scales, n, bias, out, f)

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
                        inputs = [word(builder, place, g, builder.add(first, INDEX(half)), WORDS) for half in (0, 1)]
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
                        whole = add_halves(builder, sums[k], word(builder, place, g, INDEX(START), WORDS))
                        wide = builder.fmul(builder.sitofp(whole, FLOATS), word(builder, place, g, INDEX(STEP), FLOATS))
                        total = multiply_add(builder, scale, wide, totals[k])
                        totals[k] = multiply_add(builder, middle, word(builder, place, g, INDEX(SUM), FLOATS), total)
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

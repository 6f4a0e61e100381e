"""int4 products by AVX-512: a group's products are summed in words of 32 bits.

Four products of an output are added at a time, by one instruction where the processor has VNNI.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types

from ...weights.panels import TILE
from .byte_products import add_products_of_bytes
from .dot_products import FLOATS, INDEX, WORDS
from .int4_inputs import EIGHTS, START, STEP, SUM, product_of_groups, word
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import AHEAD_ONE_ROW, prefetch_step
from .simd import (
    AVX512,
    LANES,
    accumulate,
    address,
    emits,
    index_after,
    load,
    load_bfloat16,
    multiply_add,
    prefetch,
    store,
)

Array = np.ndarray
VECTORS = 4 if AVX512 else 2  # vectors of outputs at a time


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
        zero, numbers = INDEX(0), [index_after(builder, r, row) for row in range(rows)]
        places = [address(context, builder, of_records, records, row, zero, zero) for row in numbers]
        block = address(context, builder, of_codes, codes, n, zero, zero, zero)
        groups = builder.extract_value(context.make_array(of_scales)(context, builder, scales).shape, 1)
        for column in range(0, TILE, VECTORS * LANES):

            def add_group(g: Value, totals: list[Value], column: int = column) -> list[Value]:
                whole = [word(builder, row, g, INDEX(START), WORDS) for row in places for _ in range(VECTORS)]
                for eight in range(EIGHTS):
                    j = index_after(builder, builder.mul(g, INDEX(EIGHTS)), eight)
                    here = builder.gep(block, [index_after(builder, builder.mul(j, INDEX(4 * TILE)), 4 * column)])
                    if rows == 1:
                        prefetch(builder, here, VECTORS * LANES * 4, AHEAD_ONE_ROW)
                    elif column == 0:
                        prefetch_step(builder, block, j, line, last, pace)
                    both = [load(builder, here, WORDS, v * LANES * 4) for v in range(VECTORS)]
                    for half in (0, 1):
                        shifted = [builder.lshr(one, WORDS([4] * LANES)) if half else one for one in both]
                        weights = [builder.and_(one, WORDS([0x0F0F0F0F] * LANES)) for one in shifted]
                        for row, place in enumerate(places):
                            each = word(builder, place, g, INDEX(2 * eight + half), WORDS)
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
                    for row, place in enumerate(places):
                        k = row * VECTORS + v
                        size, sum_ = (word(builder, place, g, INDEX(one), FLOATS) for one in (STEP, SUM))
                        wide = builder.fmul(builder.sitofp(whole[k], FLOATS), size)
                        totals[k] = multiply_add(builder, middle, sum_, multiply_add(builder, scale, wide, totals[k]))
                return totals

            zeros = [ir.Constant(FLOATS, None)] * (rows * VECTORS)
            totals = accumulate(builder, zeros, zero, groups, INDEX(1), add_group)
            biases = address(context, builder, of_bias, bias, INDEX(column))
            for k, total in enumerate(totals):
                row, v = divmod(k, VECTORS)
                place = address(context, builder, of_out, out, numbers[row], index_after(builder, f, column))
                store(builder, builder.fadd(total, load(builder, biases, FLOATS, v * LANES)), place, v * LANES)
        return context.get_dummy_value()

    return step


STEPS = {rows: _step(rows) for rows in range(1, (3 if AVX512 else 2) + 1)}  # by rows that pass at a time

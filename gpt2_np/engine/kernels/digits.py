"""Products of whole numbers of 8 bits: four inputs of an output at a time, added up in 32 bits.

AVX-512 VNNI has one instruction for it, which takes a byte without a sign times one with. Elsewhere the same sums take
a few instructions more. int8 multiplies inputs of 15 bits: these are moved up by OFFSET, to where none is negative, and
split into two digits of 8 bits. What moving them added, OFFSET times the sum of an output's weights, is taken off in
the end. Everything is whole and exact: the same in any order, with any instructions.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import register_jitable

from .dots import HALVES, WORDS, add_neighbours
from .llvm import Builder, Value
from .registers import BYTES, LANES

Array = np.ndarray
OFFSET = 1 << 14  # what makes 15 bits with a sign at least 0


def add_products_of_bytes(builder: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """``sums`` and, for each of their LANES numbers, four products of bytes: one without a sign times one with."""
    if BYTES:
        kind = ir.FunctionType(WORDS, [WORDS] * 3)
        multiply_add = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
        return builder.call(multiply_add, [sums, unsigned, signed])
    eight = HALVES([8] * 2 * LANES)
    unsigned, signed = builder.bitcast(unsigned, HALVES), builder.bitcast(signed, HALVES)
    even = builder.and_(unsigned, HALVES([255] * 2 * LANES)), builder.ashr(builder.shl(signed, eight), eight)
    odd = builder.lshr(unsigned, eight), builder.ashr(signed, eight)
    return add_neighbours(builder, *odd, add_neighbours(builder, *even, sums))


@register_jitable
def split(levels: Array, higher: Array, lower: Array) -> None:
    """Whole numbers of 15 bits, moved up by OFFSET, in two digits: (D,) int16 → two of (D …) uint8."""
    for d in range(len(levels)):
        level = np.int32(levels[d]) + np.int32(OFFSET)
        higher[d], lower[d] = np.uint8(level >> 8), np.uint8(level & 255)

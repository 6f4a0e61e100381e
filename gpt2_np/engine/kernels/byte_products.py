"""Dot products of 8-bit integers: four inputs of an output at a time, accumulated in 32 bits.

AVX-512 VNNI has one instruction for this (vpdpbusd), which multiplies unsigned by signed bytes. Other processors need a
few instructions for the same sums. int8 matrices take inputs of 15 bits: OFFSET is added to make them non-negative, and
each is split into a high and a low byte. The offset adds OFFSET times the sum of an output's weights, which is
subtracted at the end. All of this is exact integer arithmetic, so the result is the same in any order and with any
instructions.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import register_jitable

from .dot_products import FLOATS, HALVES, WORDS, multiply_add_pairs
from .llvm import Builder, Value
from .simd import LANES, VNNI

Array = np.ndarray
FLOAT64S = ir.VectorType(ir.DoubleType(), LANES)
OFFSET = 1 << 14  # makes signed 15-bit integers non-negative


def add_products_of_bytes(builder: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """Add four products of unsigned and signed bytes to each of the LANES numbers in ``sums``."""
    if VNNI:
        kind = ir.FunctionType(WORDS, [WORDS] * 3)
        multiply_add = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
        return builder.call(multiply_add, [sums, unsigned, signed])
    eight = HALVES([8] * 2 * LANES)
    unsigned, signed = builder.bitcast(unsigned, HALVES), builder.bitcast(signed, HALVES)
    even = builder.and_(unsigned, HALVES([255] * 2 * LANES)), builder.ashr(builder.shl(signed, eight), eight)
    odd = builder.lshr(unsigned, eight), builder.ashr(signed, eight)
    return multiply_add_pairs(builder, *odd, multiply_add_pairs(builder, *even, sums))


def combined(builder: Builder, higher: Value, lower: Value, offsets: Value) -> Value:
    """Combine the sums of products of inputs' higher and lower bytes, LANES int32 each, into float32.

    ``offsets``, what OFFSET has added, are subtracted. All are integers of up to 53 bits, which float64 holds exactly.
    """
    higher, lower = (builder.sitofp(sums, FLOAT64S) for sums in (higher, lower))
    total = builder.fadd(builder.fmul(higher, FLOAT64S([256.0] * LANES)), lower)
    return builder.fptrunc(builder.fsub(total, builder.fpext(offsets, FLOAT64S)), FLOATS)


@register_jitable
def split(levels: Array, higher: Array, lower: Array) -> None:
    """Add OFFSET to 15-bit integers and split each into a higher and a lower byte: (D,) int16 → two of (D …) uint8."""
    for d in range(len(levels)):
        level = np.int32(levels[d]) + np.int32(OFFSET)
        higher[d], lower[d] = np.uint8(level >> 8), np.uint8(level & 255)

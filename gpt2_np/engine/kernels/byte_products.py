"""Dot products of 8-bit integers: four inputs of an output at a time, accumulated in 32 bits, or in pairs in 16 bits.

AVX-512 VNNI has one instruction for the former (vpdpbusd), which multiplies unsigned by signed bytes. Other processors
need about ten for the same sums, but AVX2 only one for products in pairs (vpmaddubsw), and one to add them. int8
matrices take inputs of 15 bits: OFFSET is added to make them non-negative, and each is split into a high and a low
byte. The offset adds OFFSET times the sum of an output's weights, which is subtracted at the end. All of this is exact
integer arithmetic, so the result is the same in any order and with any instructions.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .dot_products import FLOATS, HALVES, INDEX, WORDS, multiply_add_pairs
from .llvm import Builder, Context, Signature, Value, Values
from .simd import AVX2, LANES, VNNI, address, emits, load, store

Array = np.ndarray
FLOAT64S = ir.VectorType(ir.DoubleType(), LANES)
OFFSET = 1 << 14  # makes signed 15-bit integers non-negative


def add_products_of_bytes(builder: Builder, sums: Value, unsigned: Value, signed: Value) -> Value:
    """Add four products of unsigned and signed bytes to each of the LANES numbers in ``sums``."""
    if VNNI:
        kind = ir.FunctionType(WORDS, [WORDS] * 3)
        multiply_add = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
        return builder.call(multiply_add, [sums, unsigned, signed])
    even, odd = _of_bytes(builder, unsigned, signed)
    return multiply_add_pairs(builder, *odd, multiply_add_pairs(builder, *even, sums))


def _of_bytes(builder: Builder, unsigned: Value, signed: Value) -> list[tuple[Value, Value]]:
    """Widen unsigned and signed bytes to 16 bits: those at even places of both, then those at odd places."""
    eight = HALVES([8] * 2 * LANES)
    unsigned, signed = builder.bitcast(unsigned, HALVES), builder.bitcast(signed, HALVES)
    even = builder.and_(unsigned, HALVES([255] * 2 * LANES)), builder.ashr(builder.shl(signed, eight), eight)
    return [even, (builder.lshr(unsigned, eight), builder.ashr(signed, eight))]


def products_of_pairs(builder: Builder, unsigned: Value, signed: Value) -> Value:
    """Multiply unsigned and signed bytes, four to each of LANES words, and add neighbouring products in 16 bits.

    Each sum of two products must fit in 16 bits.
    """
    if AVX2:
        quarters = ir.VectorType(ir.IntType(8), 4 * LANES)
        multiply = builder.module.declare_intrinsic(
            "llvm.x86.avx2.pmadd.ub.sw", (), ir.FunctionType(HALVES, [quarters] * 2)
        )
        return builder.call(multiply, [builder.bitcast(unsigned, quarters), builder.bitcast(signed, quarters)])
    even, odd = (builder.mul(*both) for both in _of_bytes(builder, unsigned, signed))
    return builder.add(even, odd)


def add_halves(builder: Builder, halves: Value, sums: Value) -> Value:
    """Add both 16-bit integers of each word to each of the LANES numbers in ``sums``."""
    if AVX2:
        multiply_add = builder.module.declare_intrinsic(
            "llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(WORDS, [HALVES] * 2)
        )
        return builder.add(sums, builder.call(multiply_add, [halves, HALVES([1] * 2 * LANES)]))
    words, sixteen = builder.bitcast(halves, WORDS), WORDS([16] * LANES)
    lower, upper = builder.ashr(builder.shl(words, sixteen), sixteen), builder.ashr(words, sixteen)
    return builder.add(sums, builder.add(lower, upper))


def combined(builder: Builder, higher: Value, lower: Value, offsets: Value) -> Value:
    """Combine the sums of products of inputs' higher and lower bytes, LANES int32 each, into float32.

    ``offsets``, what OFFSET has added, are subtracted. All are integers of up to 53 bits, which float64 holds exactly.
    """
    higher, lower = (builder.sitofp(sums, FLOAT64S) for sums in (higher, lower))
    total = builder.fadd(builder.fmul(higher, FLOAT64S([256.0] * LANES)), lower)
    return builder.fptrunc(builder.fsub(total, builder.fpext(offsets, FLOAT64S)), FLOATS)


def split(levels: Array, higher: Array, lower: Array) -> None:
    """Add OFFSET to 15-bit integers and split each into a higher and a lower byte: (D,) int16 → two of (D …) uint8."""
    numbers = levels.astype(np.int32) + OFFSET
    higher[: len(levels)], lower[: len(levels)] = numbers >> 8, numbers & 255


@emits(split, lambda levels, higher, lower: types.void)
def _split(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    places = [
        address(context, builder, kind, array, INDEX(0)) for kind, array in zip(signature.args, arguments, strict=True)
    ]
    size = builder.extract_value(context.make_array(signature.args[0])(context, builder, arguments[0]).shape, 0)

    # In a loop of Numba's, LLVM asks first whether the bytes of all rows overlap, which they do, row by row.
    def some(lanes: int, start: Value, end: Value) -> None:
        halves, bytes_ = (ir.VectorType(ir.IntType(bits), lanes) for bits in (16, 8))
        with cgutils.for_range_slice(builder, start, end, INDEX(lanes), inc=True) as (d, _):
            there, first, second = (builder.gep(place, [d]) for place in places)
            numbers = builder.add(load(builder, there, halves), halves([OFFSET] * lanes))
            store(builder, builder.trunc(builder.lshr(numbers, halves([8] * lanes)), bytes_), first)
            store(builder, builder.trunc(numbers, bytes_), second)

    whole = builder.sub(size, builder.srem(size, INDEX(HALVES.count)))
    some(HALVES.count, INDEX(0), whole)
    some(1, whole, size)
    return context.get_dummy_value()

"""SIMD building blocks: vector loads, multiply-adds, sums over lanes and prefetches, emitted as LLVM instructions.

A matrix product is fast when every weight that is loaded goes into several sums, and when these sums stay in registers.
Numba's loops do neither: the compiler vectorises only the innermost loop, and it uses vectors of half the width where
the processor has AVX-512. So each inner step of a kernel is written twice, side by side: as a line of NumPy, which says
what the step computes and runs when compiling is switched off, and as instructions, which `emits` attaches to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

from . import target
from .llvm import Builder, Context, Signature, Value, Values

Emitted = TypeVar("Emitted", bound="Callable[..., Value]")

AVX512 = target.has("avx512f")  # 32 registers of 512 bits, or 16 of 256
AVX2 = not AVX512 and target.has("avx2")  # 16 registers of 256 bits, for integers too
VNNI = AVX512 and target.has("avx512vnni")  # one instruction multiplies bytes and adds the products up
BFLOAT16 = AVX512 and target.has("avx512bf16")  # one instruction multiplies pairs of bfloat16 and adds both products
LANES = 16 if AVX512 else 8  # float32 numbers in a vector
LINE_FLOATS = 16  # float32 numbers in a cache line
LINE_BYTES = 4 * LINE_FLOATS


def emits(function: Callable[..., object], result: Callable[..., types.Type | None]) -> Callable[[Emitted], Emitted]:
    """Return a decorator: the decorated function emits the machine instructions of `function` in compiled code.

    `result` maps the argument types of `function` to its result type. The decorated function takes Numba's (context,
    builder, signature, arguments), as ``numba.extending.lower_builtin`` requires.
    """
    type_callable(function)(lambda context: result)
    return lower_builtin(function, types.VarArg(types.Any))


def address(context: Context, builder: Builder, array_type: types.Array, array: Value, *indices: Value) -> Value:
    """Return a pointer to an element of an array. The indices are values of the compiled code and must not be
    negative.
    """
    array = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, array, indices, wraparound=False, boundscheck=False)


def index_after(builder: Builder, index: Value, steps: int) -> Value:
    """Return ``index + steps``."""
    return builder.add(index, ir.Constant(index.type, steps))


def load(builder: Builder, where: Value, vector: ir.VectorType, first: int = 0) -> Value:
    """Load the vector of this type that starts `first` elements after `where`. The address need not be aligned."""
    where = builder.gep(where, [ir.Constant(ir.IntType(64), first)])
    return builder.load(builder.bitcast(where, vector.as_pointer()), align=1)


def load_bfloat16(builder: Builder, where: Value, first: int = 0) -> Value:
    """Load LANES bfloat16 numbers, starting `first` elements after `where`, and widen them to float32."""
    bits = ir.VectorType(ir.IntType(32), LANES)
    wide = builder.zext(load(builder, where, ir.VectorType(ir.IntType(16), LANES), first), bits)
    return builder.bitcast(builder.shl(wide, bits([16] * LANES)), ir.VectorType(ir.FloatType(), LANES))


def bfloat16_pairs(builder: Builder, words: Value) -> tuple[Value, Value]:
    """Widen the pairs of bfloat16 in LANES words to float32: those in the lower halves, and those in the upper ones."""
    kind, floats = words.type, ir.VectorType(ir.FloatType(), LANES)
    lower, upper = builder.shl(words, kind([16] * LANES)), builder.and_(words, kind([0xFFFF0000] * LANES))
    return builder.bitcast(lower, floats), builder.bitcast(upper, floats)


def store(builder: Builder, value: Value, where: Value, first: int = 0) -> None:
    """Store a vector `first` elements after `where`. The address need not be aligned."""
    where = builder.gep(where, [ir.Constant(ir.IntType(64), first)])
    builder.store(value, builder.bitcast(where, value.type.as_pointer()), align=1)


def broadcast(builder: Builder, number: Value, vector: ir.VectorType) -> Value:
    """Return a vector of this type with the same number in every lane."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return shuffle(builder, one, [0] * vector.count)


def shuffle(builder: Builder, vector: Value, lanes: list[int], other: Value | None = None) -> Value:
    """Return the given lanes of a vector, or of two: the lanes of the second are numbered after those of the first."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(vector, vector.type(ir.Undefined) if other is None else other, mask)


def transposed(builder: Builder, lines: list[Value]) -> list[Value]:
    """Transpose LANES vectors of LANES numbers: each round merges the first half's lanes with the second half's."""
    half = LANES // 2
    lower = [lane for pair in range(half) for lane in (pair, LANES + pair)]
    upper = [lane + half for lane in lower]
    for _ in range(LANES.bit_length() - 1):
        pairs = list(zip(lines[:half], lines[half:], strict=True))
        lines = [shuffle(builder, a, lanes, b) for a, b in pairs for lanes in (lower, upper)]
    return lines


def horizontal_sum(builder: Builder, vector: Value) -> Value:
    """Return the sum over the lanes of a vector of LANES numbers: its upper half is added to its lower half until one
    lane is left.
    """
    width = LANES
    while width > 1:
        width //= 2
        lower, upper = (shuffle(builder, vector, list(range(first, first + width))) for first in (0, width))
        vector = builder.fadd(lower, upper)
    return builder.extract_element(vector, ir.IntType(32)(0))


def add_in_pairs(builder: Builder, vectors: list[Value]) -> Value:
    """Return the sum of vectors, a power of two of them: `horizontal_sum` adds lanes in the same order."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        vectors = [builder.fadd(a, b) for a, b in zip(vectors[:half], vectors[half:], strict=True)]
    return vectors[0]


def computed_here(builder: Builder, vector: Value) -> Value:
    """Return the same vector, which LLVM computes here, and not where it is used: what it is made of may need more
    registers.
    """
    if not (AVX512 or AVX2):
        return vector
    kind = ir.FunctionType(vector.type, [vector.type])
    return builder.call(ir.InlineAsm(kind, "", "=v,0" if AVX512 else "=x,0", side_effect=True), [vector])


def accumulate(
    builder: Builder,
    sums: list[Value],
    start: Value,
    end: Value,
    step: Value,
    add: Callable[[Value, list[Value]], list[Value]],
) -> list[Value]:
    """Emit the loop ``for d in range(start, end, step): sums = add(d, sums)`` and return the sums."""
    places = [cgutils.alloca_once_value(builder, one) for one in sums]
    with cgutils.for_range_slice(builder, start, end, step, inc=True) as (d, _):
        for place, one in zip(places, add(d, [builder.load(place) for place in places]), strict=True):
            builder.store(one, place)
    return [builder.load(place) for place in places]


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """Return a · b + c for float32 numbers or vectors, as one fused instruction where the processor has one."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    lanes = f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else ""
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.{lanes}f32")
    return builder.call(function, [a, b, c])


def multiply_add_bfloat16(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """Multiply pairs of bfloat16, a pair in each word of a and of b, and add both products to float32 numbers.

    The upper halves' product is added first, then the lower halves', as AMD's processors do in one instruction
    (vdpbf16ps), which takes subnormal numbers for 0.
    """
    floats = ir.VectorType(ir.FloatType(), LANES)
    if BFLOAT16:
        kind = ir.FunctionType(floats, [floats, a.type, a.type])
        function = builder.module.declare_intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", (), kind)
        return builder.call(function, [c, a, b])
    (lower, upper), (rest, more) = (bfloat16_pairs(builder, one) for one in (a, b))
    return multiply_add(builder, lower, rest, multiply_add(builder, upper, more, c))


def prefetch(builder: Builder, where: Value, size: int, ahead: int = 0, level: int = 2) -> None:
    """Prefetch `size` bytes, `ahead` bytes after an address, into the cache of this level.

    The address need not be valid: a prefetch never faults.
    """
    where = builder.bitcast(where, ir.IntType(8).as_pointer())
    for offset in range(ahead, ahead + size, LINE_BYTES):
        prefetch_line(builder, builder.gep(where, [ir.Constant(ir.IntType(64), offset)]), level)


def prefetch_line(builder: Builder, where: Value, level: int = 2) -> None:
    """Prefetch the cache line that holds an address, into the first-level or the second-level cache."""
    where, flag = builder.bitcast(where, ir.IntType(8).as_pointer()), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [where.type, flag, flag, flag])
    function = builder.module.declare_intrinsic("llvm.prefetch", [where.type], kind)
    to_read, locality, data = (ir.Constant(flag, value) for value in (0, 4 - level, 1))
    builder.call(function, [where, to_read, locality, data])


def prefetch_element(rows: np.ndarray, s: int, d: int) -> None:
    """Prefetch the cache line that holds ``rows[s, d]``. The element need not lie inside the array."""


@emits(prefetch_element, lambda rows, s, d: types.void)
def _prefetch_element(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    rows, s, d = arguments
    prefetch_line(builder, address(context, builder, signature.args[0], rows, s, d))
    return context.get_dummy_value()

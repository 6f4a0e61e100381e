"""Sums that stay in the processor's registers: the innermost steps of the matrix products, as machine instructions.

A product is fast where every weight that is loaded goes into several sums, and the sums stay in registers on the way.
Numba's loops do neither: the compiler vectorises the innermost loop alone, and in vectors of half the width where there
is AVX-512. So the few steps that the kernels repeat are written twice, each beside its kernel: a line of NumPy, which
says what the step computes and runs where compiling is switched off, and its instructions, by `emits`.
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

WIDE = target.has("avx512f")  # 32 registers of 512 bits, or 16 of 256
BYTES = WIDE and target.has("avx512vnni")  # whether one instruction multiplies and adds up bytes
LANES = 16 if WIDE else 8  # float32 numbers in a vector
LINE = 16  # float32 numbers in a line of the processor's cache
LINE_BYTES = 4 * LINE


def emits(function: Callable[..., object], result: Callable[..., types.Type | None]) -> Callable[[Emitted], Emitted]:
    """The decorator of what emits the instructions of `function`; `result` gives the type of its result from its own.

    What is decorated takes Numba's (context, builder, signature, arguments), as for `numba.extending.lower_builtin`.
    """
    type_callable(function)(lambda context: result)
    return lower_builtin(function, types.VarArg(types.Any))


def address(context: Context, builder: Builder, array_type: types.Array, array: Value, *indices: Value) -> Value:
    """Where an element of an array lies. Indices are of the compiled code; none may be negative."""
    array = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, array, indices, wraparound=False, boundscheck=False)


def further(builder: Builder, index: Value, steps: int) -> Value:
    """An index some steps on."""
    return builder.add(index, ir.Constant(index.type, steps))


def load(builder: Builder, where: Value, vector: ir.VectorType, first: int = 0) -> Value:
    """The vector of this type that begins `first` elements behind an address."""
    where = builder.gep(where, [ir.Constant(ir.IntType(64), first)])
    return builder.load(builder.bitcast(where, vector.as_pointer()), align=1)


def load_upper_halves(builder: Builder, where: Value, first: int = 0) -> Value:
    """LANES float32 numbers of which memory holds the upper halves, bfloat16's bits, `first` of them behind a place."""
    bits = ir.VectorType(ir.IntType(32), LANES)
    wide = builder.zext(load(builder, where, ir.VectorType(ir.IntType(16), LANES), first), bits)
    return builder.bitcast(builder.shl(wide, bits([16] * LANES)), ir.VectorType(ir.FloatType(), LANES))


def store(builder: Builder, value: Value, where: Value, first: int = 0) -> None:
    """Put a vector `first` elements behind an address."""
    where = builder.gep(where, [ir.Constant(ir.IntType(64), first)])
    builder.store(value, builder.bitcast(where, value.type.as_pointer()), align=1)


def repeat(builder: Builder, number: Value, vector: ir.VectorType) -> Value:
    """The vector of this type with the same number everywhere."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return choose(builder, one, [0] * vector.count)


def choose(builder: Builder, vector: Value, lanes: list[int], other: Value | None = None) -> Value:
    """The vector of some lanes of another, or of two, the second's lanes counted on behind the first's."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(vector, vector.type(ir.Undefined) if other is None else other, mask)


def adding(builder: Builder, vector: ir.VectorType) -> Callable[[Value, Value], Value]:
    """The instruction that adds vectors of this type."""
    return builder.add if isinstance(vector.element, ir.IntType) else builder.fadd


def across(builder: Builder, vectors: list[Value]) -> list[Value]:
    """The sum over the lanes of each vector of LANES numbers.

    Each one's upper half of lanes is added to its lower, again and again; two share lanes that get free.
    """
    totals = []
    for first in range(0, len(vectors), LANES):
        some = vectors[first : first + LANES]
        count, width = len(some), LANES
        while width > 1:
            some = some + some[-1:] * (len(some) % 2 if len(some) > 1 else 0)
            some, width = _halved(builder, some, width), width // 2
        totals += [builder.extract_element(some[0], ir.IntType(32)(lane)) for lane in range(count)]
    return totals


def _halved(builder: Builder, vectors: list[Value], width: int) -> list[Value]:
    """Sums that take up `width` lanes each, in half as many; two vectors become one where there are two."""
    add, count = adding(builder, vectors[0].type), vectors[0].type.count
    lower = [first + i for first in range(0, count, width) for i in range(width // 2)]
    upper = [lane + width // 2 for lane in lower]
    if len(vectors) == 1:
        return [add(choose(builder, vectors[0], lower), choose(builder, vectors[0], upper))]
    lower, upper = (half + [count + lane for lane in half] for half in (lower, upper))
    return [
        add(choose(builder, a, lower, b), choose(builder, a, upper, b))
        for a, b in zip(vectors[::2], vectors[1::2], strict=True)
    ]


def summing(
    builder: Builder,
    sums: list[Value],
    start: Value,
    end: Value,
    step: Value,
    add: Callable[[Value, list[Value]], list[Value]],
) -> list[Value]:
    """The loop ``for d in range(start, end, step): sums = add(d, sums)``, for some numbers or vectors."""
    places = [cgutils.alloca_once_value(builder, one) for one in sums]
    with cgutils.for_range_slice(builder, start, end, step, inc=True) as (d, _):
        for place, one in zip(places, add(d, [builder.load(place) for place in places]), strict=True):
            builder.store(one, place)
    return [builder.load(place) for place in places]


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """a · b + c for float32, numbers or vectors, rounded once where the processor can."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    lanes = f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else ""
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.{lanes}f32")
    return builder.call(function, [a, b, c])


def prefetch(builder: Builder, where: Value, size: int, ahead: int = 0, level: int = 2) -> None:
    """Prefetch `size` bytes, `ahead` bytes behind an address, into the cache of this level. Any address will do."""
    where = builder.bitcast(where, ir.IntType(8).as_pointer())
    for offset in range(ahead, ahead + size, LINE_BYTES):
        prefetch_line(builder, builder.gep(where, [ir.Constant(ir.IntType(64), offset)]), level)


def prefetch_line(builder: Builder, where: Value, level: int = 2) -> None:
    """Prefetch the cache line that an address lies in, into the first-level or the second-level cache."""
    where, flag = builder.bitcast(where, ir.IntType(8).as_pointer()), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [where.type, flag, flag, flag])
    function = builder.module.declare_intrinsic("llvm.prefetch", [where.type], kind)
    to_read, locality, data = (ir.Constant(flag, value) for value in (0, 4 - level, 1))
    builder.call(function, [where, to_read, locality, data])


def ask(rows: np.ndarray, s: int, d: int) -> None:
    """Ask memory for the line of the processor's cache that ``rows[s, d]`` lies in. It need not lie in the array."""


@emits(ask, lambda rows, s, d: types.void)
def _ask(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    rows, s, d = arguments
    prefetch_line(builder, address(context, builder, signature.args[0], rows, s, d))
    return context.get_dummy_value()

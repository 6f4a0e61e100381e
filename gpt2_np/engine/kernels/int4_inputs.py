"""Inputs of int4 products: groups of 32, each rounded to multiples of a step of its own.

A row's groups are records: the levels of 32 inputs, and what else a group needs of them. All of a row is found by one
address, which matters where 16 general registers hold the addresses of several rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from llvmlite import ir
from numba import types, void

from ...weights.panels import GROUP, INT4_STEP, TILE, from_bits
from .compiled import compiled
from .dot_products import FLOATS, INDEX, WORDS
from .kernel_types import SERIAL, matrix
from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, address, broadcast, emits, load, store

Array = np.ndarray
EIGHTS = GROUP // 8  # loop steps of a group: eight inputs each
# A record, in words: the levels, four in each, their sum times −8, and as float32 their step and their sum times that.
START, STEP, SUM, RECORD = GROUP // 4, GROUP // 4 + 1, GROUP // 4 + 2, GROUP // 4 + 3
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


def word(builder: Builder, row: Value, g: Value, k: Value, vector: ir.VectorType) -> Value:
    """Broadcast the k-th word of the g-th record of a row, whose first one is at this address."""
    where = builder.gep(row, [builder.add(builder.mul(g, INDEX(RECORD)), k)])
    return broadcast(builder, builder.load(builder.bitcast(where, vector.element.as_pointer())), vector)


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


def product_of_groups(
    records: Array, r: int, rows: int, codes: Array, scales: Array, n: int, bias: Array, out: Array, f: int
) -> None:
    """Write so many rows, from the r-th on, times the n-th panel, plus its bias, into ``out`` from column f on.

    ``records`` come from `round_groups`. A code stands for its distance from 8, so a group's sum of products starts at
    −8 times the sum of its levels.
    """
    words = records[r : r + rows]
    levels = np.ascontiguousarray(words[..., :START]).view(np.int8).astype(np.int32)
    both = codes[n].reshape(-1, EIGHTS, TILE, 4)
    inputs = np.stack([both & 15, both >> 4], axis=2).swapaxes(3, 4).reshape(-1, GROUP, TILE).astype(np.int32)
    whole = np.einsum("rgd,gdo->rgo", levels, inputs) + words[..., START, None]
    steps, sums = (np.ascontiguousarray(words[..., k, None]).view(np.float32) for k in (STEP, SUM))
    scale, middle = (from_bits(scales[n, :, which]) for which in (0, 1))
    total = scale * (whole.astype(np.float32) * steps) + middle * sums
    out[r : r + rows, f : f + TILE] = total.sum(axis=1) + bias

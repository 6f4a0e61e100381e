"""AMX: eight tile registers of 16 rows × 64 bytes, and one instruction that multiplies two of them.

A tile of inputs, 16 rows × 64 bytes, times a tile of weights, 16 × (16 outputs × 4 bytes), is 16,384 products of bytes,
which are summed in 32 bits: four times what AVX-512 VNNI does in the same time. With bfloat16 numbers it is 8,192
products, which are summed in float32. The panels of int8 and bfloat16 (`weights.panels`) hold four and two inputs of
each output side by side, which is the layout of a tile of weights. Inputs are stored tile after tile, as they are
loaded: loading rows that are far apart takes twice as long.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import register_jitable

from . import target
from .llvm import Builder, Context, Signature, Value, Values
from .simd import AVX512, emits

Array = np.ndarray
TILES = AVX512 and target.tiles()
HALVES = TILES and target.has("amx-bf16")
ROWS, BYTES_OF_ROW = 16, 64  # rows of a tile, and bytes of a row
CACHED = 3 << 19  # bytes of the second-level cache for the rows that pass over the panels
_PALETTE = [1, 0] + [0] * 14 + [BYTES_OF_ROW, 0] * 8 + [0] * 16 + [ROWS] * 8 + [0] * 8
_FIRST_ROWS = 48  # the place of the tiles' numbers of rows in the palette
_NUMBER, _BYTES = ir.IntType(8), ir.IntType(8).as_pointer()


def configure(rows: int, tiles: int) -> None:
    """Give this thread's first ``tiles`` tiles so many rows, up to 16, and the others 16. `release` must follow."""


def release() -> None:
    """Release the tiles: context switches are faster for a thread without any."""


@emits(configure, lambda rows, tiles: types.void)
def _configure(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    rows, tiles = arguments
    kind = ir.ArrayType(_NUMBER, len(_PALETTE))
    palette = cgutils.alloca_once_value(builder, ir.Constant(kind, bytearray(_PALETTE)))
    palette = builder.bitcast(palette, _BYTES)
    with cgutils.for_range(builder, tiles) as loop:
        place = builder.gep(palette, [builder.add(loop.index, loop.index.type(_FIRST_ROWS))])
        builder.store(builder.trunc(rows, _NUMBER), place)
    _call(builder, "llvm.x86.ldtilecfg", palette)
    return context.get_dummy_value()


@emits(release, lambda: types.void)
def _release(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    _call(builder, "llvm.x86.tilerelease")
    return context.get_dummy_value()


def zero_tile(builder: Builder, tile: int) -> None:
    """Emit the instruction that fills a tile with zeros."""
    _call(builder, "llvm.x86.tilezero", _NUMBER(tile))


def load_tile(builder: Builder, tile: int, where: Value, stride: Value) -> None:
    """Emit the instruction that loads 16 rows of 64 bytes, `stride` bytes apart."""
    _call(builder, "llvm.x86.tileloadd64", _NUMBER(tile), builder.bitcast(where, _BYTES), stride)


def store_tile(builder: Builder, tile: int, where: Value, stride: Value) -> None:
    """Emit the instruction that stores a tile's rows, `stride` bytes apart."""
    _call(builder, "llvm.x86.tilestored64", _NUMBER(tile), builder.bitcast(where, _BYTES), stride)


def multiply_tiles(builder: Builder, sums: int, unsigned: int, signed: int) -> None:
    """Emit the instruction that adds products of unsigned and signed bytes to a tile of 32-bit sums."""
    _call(builder, "llvm.x86.tdpbusd", *map(_NUMBER, (sums, unsigned, signed)))


def multiply_halves(builder: Builder, sums: int, inputs: int, weights: int) -> None:
    """Emit the instruction that adds products of bfloat16 numbers to a tile of float32 sums."""
    _call(builder, "llvm.x86.tdpbf16ps", *map(_NUMBER, (sums, inputs, weights)))


def _call(builder: Builder, name: str, *arguments: Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@register_jitable
def aligned(size: int) -> Array:
    """Return ``size`` bytes aligned to a cache line: a tile's row that straddles two lines is loaded twice."""
    memory = np.empty(size + BYTES_OF_ROW, np.uint8)
    return memory[-memory.ctypes.data % BYTES_OF_ROW :]

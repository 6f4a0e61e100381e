"""AMX's tile registers in NumPy, so that the kernels for them run where no processor has them.

This is a pytest plugin: ``python -m pytest -p tile_emulation`` makes the package believe that there are tiles, and
calls Python where it would emit an instruction for them. Intel's Software Developer's Manual says what each one does.
The code that is compiled holds addresses of this process, so ``XDG_CACHE_HOME`` must be a folder of its own; and there
is one set of registers, so it serves one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from gpt2_np.engine.kernels import target
from gpt2_np.weights.panels import from_bits

has = target.has
target.has = lambda feature: feature.startswith("amx") or has(feature)
target.tiles = lambda: True

from gpt2_np.engine.kernels import amx  # noqa: E402

TILES, ROWS, BYTES = 8, 16, 64
SIZES = slice(48, 48 + TILES)  # the tiles' numbers of rows in a palette
tiles, rows = np.zeros((TILES, ROWS, BYTES), np.uint8), np.zeros(TILES, np.uint8)
Number, Pointer, Stride = ctypes.c_uint8, ctypes.c_size_t, ctypes.c_int64
KINDS = {Number: ir.IntType(8), Pointer: ir.IntType(8).as_pointer(), Stride: ir.IntType(64)}


def memory(where: int, stride: int, row: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * BYTES).from_address(where + row * stride))


def ldtilecfg(palette: int) -> None:
    rows[:] = memory(palette, 0, 0)[SIZES]
    tiles[:] = 0


def tilerelease() -> None:
    rows[:] = 0  # whoever goes on loads and multiplies nothing


def tilezero(tile: int) -> None:
    tiles[tile] = 0


def tileloadd64(tile: int, where: int, stride: int) -> None:
    tiles[tile] = 0
    for row in range(rows[tile]):
        tiles[tile, row] = memory(where, stride, row)


def tilestored64(tile: int, where: int, stride: int) -> None:
    for row in range(rows[tile]):
        memory(where, stride, row)[:] = tiles[tile, row]


def tdpbusd(sums: int, unsigned: int, signed: int) -> None:
    """Each word of sums gets the products of four bytes of a row of the first with four of a column of the second."""
    left = tiles[unsigned].astype(np.int32)
    right = tiles[signed].view(np.int8).astype(np.int32).reshape(ROWS, ROWS, 4).swapaxes(1, 2).reshape(BYTES, ROWS)
    tiles[sums].view(np.int32)[: rows[sums]] += (left @ right)[: rows[sums]]


def tdpbf16ps(sums: int, first: int, second: int) -> None:
    """The same for pairs of bfloat16 numbers, in float32; each row's sums are taken in one order."""
    left, right = (from_bits(tiles[k].view(np.uint16)) for k in (first, second))
    products = left.reshape(ROWS, ROWS, 1, 2) * right.reshape(1, ROWS, ROWS, 2)
    tiles[sums].view(np.float32)[: rows[sums]] += products.sum(axis=(1, 3))[: rows[sums]]


INSTRUCTIONS: dict[str, tuple[Callable[..., None], tuple[type, ...]]] = {
    "ldtilecfg": (ldtilecfg, (Pointer,)),
    "tilerelease": (tilerelease, ()),
    "tilezero": (tilezero, (Number,)),
    "tileloadd64": (tileloadd64, (Number, Pointer, Stride)),
    "tilestored64": (tilestored64, (Number, Pointer, Stride)),
    "tdpbusd": (tdpbusd, (Number,) * 3),
    "tdpbf16ps": (tdpbf16ps, (Number,) * 3),
}
callbacks = {name: ctypes.CFUNCTYPE(None, *kinds)(run) for name, (run, kinds) in INSTRUCTIONS.items()}


def called(builder, name: str, *arguments) -> None:
    name = name.removeprefix("llvm.x86.")
    kind = ir.FunctionType(ir.VoidType(), [KINDS[one] for one in INSTRUCTIONS[name][1]])
    where = ir.IntType(64)(ctypes.cast(callbacks[name], ctypes.c_void_p).value)
    builder.call(builder.inttoptr(where, kind.as_pointer()), arguments)


amx._call = called

"""What all kernels share: compiler settings, array types, and the reading of a float's bits."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import get_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .compiled import PLAIN
from .llvm import Builder, Context, Signature, Value, Values

# Sums keep their written order, each step a fused multiply-add, so every compilation gives the same bits.
# (Numba compiles a function again into each caller; if sums could be reordered, every caller might get another order.)
# So code that sums many numbers fast fixes the order itself: see `dot_products`.
ORDERED = {"contract", "nsz"}
# Division as NumPy does it: a check for zero would keep every loop with a division out of the vector lanes.
SERIAL: dict[str, Any] = {"fastmath": ORDERED, "error_model": "numpy", "nogil": True}
PARALLEL: dict[str, Any] = {"fastmath": ORDERED, "error_model": "numpy", "parallel": True}
# For what Python calls by itself, for milliseconds in which its other threads may run.
PARALLEL_NOGIL: dict[str, Any] = PARALLEL | {"nogil": True}

# Weights may lie in a read-only mapped file; a writable array is accepted in the same place.
vector = types.Array(types.float32, 1, "C", readonly=True)
matrix = types.Array(types.float32, 2, "C", readonly=True)
weights4 = types.Array(types.float32, 4, "C", readonly=True)
heads4 = types.Array(types.float32, 4, "A", readonly=True)  # a part of queries, keys and values side by side
out_heads4 = types.Array(types.float32, 4, "A")
panels3 = types.Array(types.float32, 3, "C", readonly=True)
halves3 = types.Array(types.uint32, 3, "C", readonly=True)
codes8 = types.Array(types.int8, 4, "C", readonly=True)
codes4 = types.Array(types.uint8, 4, "C", readonly=True)
grids = types.Array(types.uint16, 4, "C", readonly=True)
out1 = types.Array(types.float32, 1, "C")
out2 = types.Array(types.float32, 2, "C")
out3 = types.Array(types.float32, 3, "C")
out4 = types.Array(types.float32, 4, "C")
pieces2 = types.Array(types.int64, 2, "C", readonly=True)
lengths1 = types.Array(types.int64, 1, "C", readonly=True)


def _float_of_bits(typing: Any, bits: Any) -> Any:
    def codegen(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


def _bits_of_float(typing: Any, x: Any) -> Any:
    def codegen(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


def _plain_float_of_bits(bits: Any) -> Any:
    """Return the float32 whose bits are this int32."""
    return np.int32(bits).view(np.float32)


def _plain_bits_of_float(x: Any) -> Any:
    """Return the bits of a float32 as an int32."""
    return np.float32(x).view(np.int32)


float_of_bits: Any = _plain_float_of_bits if PLAIN else intrinsic(_float_of_bits)
bits_of_float: Any = _plain_bits_of_float if PLAIN else intrinsic(_bits_of_float)


def _threads(typing: Any) -> Any:
    get_num_threads()  # makes the symbol known

    def codegen(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        kind = ir.FunctionType(ir.IntType(cast(Any, types.intp).bitwidth), [])  # as Numba declares it
        count = builder.call(cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), [])
        return builder.trunc(count, ir.IntType(32))

    return types.int32(), codegen


def threads_here() -> int:
    """Return how many threads a parallel loop would use."""
    return int(get_num_threads())


if not PLAIN:
    # Numba's own function is called by its address, and code that does so isn't kept.
    _counted: Any = intrinsic(_threads)

    @overload(threads_here, inline="always")
    def _threads_here() -> Any:
        return lambda: _counted()

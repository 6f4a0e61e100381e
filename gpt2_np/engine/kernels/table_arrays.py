"""The arrays in a table of addresses (`address_tables`), as compiled code sees them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.np.arrayobj import populate_array

from . import kernel_types
from .address_tables import NUMBERS_PER_ARRAY, WEIGHT_TYPES
from .dot_products import INDEX
from .kernel_types import matrix, out2, out3, out4, vector
from .llvm import Builder, Context, Signature, Value, Values
from .simd import address, emits

Array = np.ndarray

WEIGHTS = {code: tuple(getattr(kernel_types, name) for name in names) for code, names in WEIGHT_TYPES.items()}
NORM, KEPT = (vector, vector), (out4, out4)


def layer_arrays(code: str) -> types.Tuple:
    """Return the types of a layer's arrays, keys and values first, for weights of this dtype (``dtype.char``)."""
    linear = (*WEIGHTS[code], vector)
    return types.Tuple((*KEPT, *NORM, *linear, *linear, *NORM, *linear, *linear))


def other_arrays(head: str) -> types.Tuple:
    """Return the types of the other arrays: embeddings, final norm, unembedding, score scales and working memory."""
    return types.Tuple(
        (matrix, matrix, *NORM, *WEIGHTS[head], vector, vector, out2, types.int64[::1], out2, out2, out2, out3, out2)
    )


def layer(code: str, table: Array, n: int) -> tuple[Array, ...]:
    """Return the arrays in the n-th row of an `address_table` of layers."""
    return _arrays(layer_arrays(code), table[n])


def others(head: str, table: Array, n: int) -> tuple[Array, ...]:
    """Return the arrays in the n-th row of an `address_table` of `other_arrays`."""
    return _arrays(other_arrays(head), table[n])


def _arrays(kinds: types.Tuple, numbers: Array) -> tuple[Array, ...]:
    arrays = []
    for kind, (where, *shape) in zip(kinds, numbers.reshape(-1, NUMBERS_PER_ARRAY).tolist(), strict=True):
        dtype, shape = np.dtype(str(kind.dtype)), shape[: kind.ndim]
        memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(where)
        arrays.append(np.ndarray(shape, dtype, memory))
    return tuple(arrays)


def _emit_arrays(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    _, table, n = arguments
    arrays = []
    for number, kind in enumerate(signature.return_type.types):
        where, *shape = [
            builder.load(address(context, builder, signature.args[1], table, n, INDEX(i)))
            for i in range(number * NUMBERS_PER_ARRAY, number * NUMBERS_PER_ARRAY + 1 + kind.ndim)
        ]
        array = context.make_array(kind)(context, builder)
        size = context.get_abi_sizeof(array.data.type.pointee)
        strides = [INDEX(size)]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        # No reference is counted: the arrays outlive the call.
        populate_array(array, builder.inttoptr(where, array.data.type), shape, strides, INDEX(size), None)
        arrays.append(array._getvalue())
    return context.make_tuple(builder, signature.return_type, arrays)


def _typed(kinds: Callable[[str], types.Tuple]) -> Callable[..., types.Tuple | None]:
    """Return the typing function of `layer` or `others`. The result type depends on the code's literal value."""
    return lambda code, table, n: kinds(code.literal_value) if isinstance(code, types.StringLiteral) else None


emits(layer, _typed(layer_arrays))(_emit_arrays)
emits(others, _typed(other_arrays))(_emit_arrays)

"""Arrays of compiled code by where they lie: how a step is given hundreds of them at the price of two.

What a step needs besides ids stays the same from step to step. To take apart an array of Python's costs several visits
to memory each time, since the weights have gone through the processor's cache meanwhile: so it gets a table of numbers.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.np.arrayobj import populate_array

from .arithmetic import codes4, codes8, grids, halves3, matrix, out2, out3, out4, panels3, vector
from .dots import INDEX
from .llvm import Builder, Context, Signature, Value, Values
from .registers import address, emits

Array = np.ndarray

NUMBERS = 5  # of a table that tell of one array: where it lies, and its shape, of four dimensions at most
WEIGHTS = {"f": (panels3, matrix), "I": (halves3, matrix), "b": (codes8, matrix), "B": (codes4, grids)}
NORM, KEPT = (vector, vector), (out4, out4)


def layer_arrays(code: str) -> types.Tuple:
    """Of what types a layer's arrays are, keys and values first, for weights kept in this dtype (``dtype.char``)."""
    linear = (*WEIGHTS[code], vector)
    return types.Tuple((*KEPT, *NORM, *linear, *linear, *NORM, *linear, *linear))


def other_arrays(head: str) -> types.Tuple:
    """And those beside the layers: embeddings, final norm, vocabulary, scales of the scores, and room to work in."""
    return types.Tuple(
        (matrix, matrix, *NORM, *WEIGHTS[head], vector, vector, out2, types.int64[::1], out2, out2, out2, out3, out2)
    )


def table(rows: list[tuple[Array, ...]]) -> Array:
    """Where arrays lie and their shapes, for `layer` and `others`: (rows, arrays · NUMBERS) int64.

    The arrays must lie in rows, and outlive the table.
    """
    return np.array(
        [
            [number for array in row for number in (array.ctypes.data, *array.shape, *[1] * (NUMBERS - 1 - array.ndim))]
            for row in rows
        ],
        np.int64,
    )


def layer(code: str, table: Array, n: int) -> tuple[Array, ...]:
    """The arrays in the n-th row of a `table` of layers."""
    return _arrays(layer_arrays(code), table[n])


def others(head: str, table: Array, n: int) -> tuple[Array, ...]:
    """The arrays in the n-th row of a `table` of `other_arrays`."""
    return _arrays(other_arrays(head), table[n])


def _arrays(kinds: types.Tuple, numbers: Array) -> tuple[Array, ...]:
    arrays = []
    for kind, (where, *shape) in zip(kinds, numbers.reshape(-1, NUMBERS).tolist(), strict=True):
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
            for i in range(number * NUMBERS, number * NUMBERS + 1 + kind.ndim)
        ]
        array = context.make_array(kind)(context, builder)
        size = context.get_abi_sizeof(array.data.type.pointee)
        strides = [INDEX(size)]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        # Nobody counts who uses it: the arrays outlive the call.
        populate_array(array, builder.inttoptr(where, array.data.type), shape, strides, INDEX(size), None)
        arrays.append(array._getvalue())
    return context.make_tuple(builder, signature.return_type, arrays)


def _typed(kinds: Callable[[str], types.Tuple]) -> Callable[..., types.Tuple | None]:
    """The type of what `layer` or `others` gives, which the code tells: Numba asks without its value first."""
    return lambda code, table, n: kinds(code.literal_value) if isinstance(code, types.StringLiteral) else None


emits(layer, _typed(layer_arrays))(_emit_arrays)
emits(others, _typed(other_arrays))(_emit_arrays)

"""All of a model's blocks for few positions in one compiled call: what decoding spends its time on.

The twin of `model.block`, for GPT-2's own activation and with a cache, layer after layer. Nothing in it is new: it
strings together the kernels of the single operations, so it gives the same bits as they do, without the way back to
Python between them.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types, void
from numba.core import cgutils
from numba.extending import register_jitable

from .arithmetic import SERIAL, codes4, codes8, codes16, grids, lengths1, matrix, out2, out3, out4, vector
from .causal import attend
from .pointwise import gelu_rows, layer_norm_rows
from .product import product
from .registers import address, emits
from .streaming import BLOCKS, rows_with_room

Array = np.ndarray

WEIGHTS = {"f": (matrix, matrix), "H": (codes16, matrix), "b": (codes8, matrix), "B": (codes4, grids)}


def of_layer(first: tuple[Array, ...], addresses: Array, layer: int) -> tuple[Array, ...]:
    """A layer's arrays, which are like those of the first layer but lie at ``addresses[layer]``.

    So that a call of twelve layers gets one layer's arrays, and a table: what Python hands over as an array, it has to
    take apart at every call.
    """
    return tuple(
        np.ndarray(array.shape, array.dtype, (ctypes.c_char * array.nbytes).from_address(int(where)))
        for array, where in zip(first, addresses[layer], strict=True)
    )


@emits(of_layer, lambda first, addresses, layer: first)
def _of_layer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    first, addresses, layer = arguments
    arrays = []
    for n, kind in enumerate(signature.args[0].types):
        array = context.make_array(kind)(context, builder, builder.extract_value(first, n))
        where = address(context, builder, signature.args[1], addresses, layer, ir.IntType(64)(n))
        array.data = builder.inttoptr(builder.load(where), array.data.type)
        # Nobody counts who uses it: the parameters outlive the call.
        array.meminfo, array.parent = (cgutils.get_null_value(one.type) for one in (array.meminfo, array.parent))
        arrays.append(array._getvalue())
    return context.make_tuple(builder, signature.return_type, arrays)


@register_jitable
def add(x: Array, more: Array) -> None:
    """x += more, by the one thread that is here: for so little, calling the others takes longer."""
    for r in range(len(x)):
        for d in range(x.shape[1]):
            x[r, d] += more[r, d]


@register_jitable
def block(
    x: Array, positions: Array, epsilon: float, scale: float, layer: tuple[Array, ...], room: tuple[Array, ...]
) -> None:
    """`model.block` of R positions, in place, with a layer's keys, values and parameters."""
    (k, v, ln_1_weight, ln_1_bias, attn, attn_scales, attn_bias, proj, proj_scales, proj_bias,
     ln_2_weight, ln_2_bias, fc, fc_scales, fc_bias, out, out_scales, out_bias) = layer  # fmt: skip
    normalized, qkv, pattern, z, hidden, activated, sums = room
    layer_norm_rows(x, ln_1_weight, ln_1_bias, epsilon, normalized)
    product(normalized, attn, attn_scales, attn_bias, sums, qkv)
    attend(qkv, k, v, positions, scale, pattern, z)
    product(z.reshape(x.shape), proj, proj_scales, proj_bias, sums, normalized)
    add(x, normalized)

    layer_norm_rows(x, ln_2_weight, ln_2_bias, epsilon, normalized)
    product(normalized, fc, fc_scales, fc_bias, sums, hidden)
    gelu_rows(hidden, activated)
    product(activated, out, out_scales, out_bias, sums, normalized)
    add(x, normalized)


def _blocks(
    x: Array, positions: Array, epsilon: float, scales: Array,
    first: tuple[Array, ...], addresses: Array, room: tuple[Array, ...],
) -> None:  # fmt: skip
    for layer in range(len(scales)):
        block(x, positions, epsilon, scales[layer], of_layer(first, addresses, layer), room)


def room(R: int, D: int, F: int, H: int, longest: int) -> tuple[Array, ...]:
    """What a block needs to work in, for R positions that see up to `longest` keys."""
    sums = (BLOCKS, rows_with_room(R), max(3 * D, F))
    shapes = ((R, D), (R, 3 * D), (R, H, longest), (R, H, D // H), (R, F), (R, F), sums)
    return tuple(np.empty(shape, np.float32) for shape in shapes)


@cache
def blocks(code: str) -> Any:
    """The compiled blocks for weights kept in this dtype (``dtype.char``). Compiled when first asked for.

    Called with ``x`` (R, D), ``positions`` (R,), the layer norms' epsilon, ``scales`` (L,), what scores are multiplied
    by, the first layer's keys and values, (B, H, N, K), and its parameters, the ``addresses`` of every layer's, and a
    `room`. It changes x, the residual stream of R positions, in place, and writes their keys and values into the cache.
    Row b of the cache has R / B of them, one behind the other: position r stands at ``positions[r]``.
    """
    linear = (*WEIGHTS[code], vector)
    first = types.Tuple((out4, out4, vector, vector, *linear, *linear, vector, vector, *linear, *linear))
    working = types.Tuple((out2, out2, out3, out3, out2, out2, out3))
    signature = void(out2, lengths1, types.float32, vector, first, types.int64[:, ::1], working)
    return numba.njit(signature, **SERIAL)(_blocks)

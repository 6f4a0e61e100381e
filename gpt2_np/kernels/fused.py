"""The whole forward pass for few positions in one compiled call: what decoding spends its time on.

The twin of `model.forward`, for GPT-2's own activation and with a cache. Nothing in it is new: it strings together the
kernels of the single operations, so it gives the same bits as they do, without the way back to Python between them.
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

Array = np.ndarray

ids2 = types.Array(types.int64, 2, "C", readonly=True)
WEIGHTS = {"f": (matrix, matrix), "H": (codes16, matrix), "b": (codes8, matrix), "B": (codes4, grids)}


def of_layer(first: tuple[Array, ...], addresses: Array, layer: int) -> tuple[Array, ...]:
    """A layer's arrays, which are like those of the first layer but lie at ``addresses[layer]``.

    So a call is given one layer's arrays, and a table: each array that Python hands over must be taken apart again.
    """
    return tuple(
        np.ndarray(array.shape, array.dtype, memoryview((ctypes.c_char * array.nbytes).from_address(int(where))))
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
    """`model.block` of R positions, in place, with a layer's keys, values and parameters, and a `room`."""
    (k, v, ln_1_weight, ln_1_bias, attn, attn_scales, attn_bias, proj, proj_scales, proj_bias,
     ln_2_weight, ln_2_bias, fc, fc_scales, fc_bias, out, out_scales, out_bias) = layer  # fmt: skip
    normalized, qkv, pattern, z, hidden, activated = room
    layer_norm_rows(x, ln_1_weight, ln_1_bias, epsilon, normalized)
    product(normalized, attn, attn_scales, attn_bias, qkv)
    attend(qkv, k, v, positions, scale, pattern, z)
    product(z.reshape(x.shape), proj, proj_scales, proj_bias, normalized)
    add(x, normalized)

    layer_norm_rows(x, ln_2_weight, ln_2_bias, epsilon, normalized)
    product(normalized, fc, fc_scales, fc_bias, hidden)
    gelu_rows(hidden, activated)
    product(activated, out, out_scales, out_bias, normalized)
    add(x, normalized)


def _forward(
    ids: Array, types: Array, lengths: Array, last_only: bool, logits: Array,
    wte: Array, wpe: Array, first: tuple[Array, ...], addresses: Array, final: tuple[Array, ...],
    epsilon: float, scales: Array, x: Array, positions: Array, room: tuple[Array, ...],
) -> None:  # fmt: skip
    B, T = ids.shape
    for r in range(B * T):
        b, t = r // T, r % T
        positions[r] = lengths[b] + t
        token, position = wte[ids[b, t]], wpe[positions[r]]
        for d in range(x.shape[1]):
            x[r, d] = token[d] + position[d]
        if len(types):
            kind = wte[types[b, t]]
            for d in range(x.shape[1]):
                x[r, d] += kind[d]
    for layer in range(len(scales)):
        block(x, positions, epsilon, scales[layer], of_layer(first, addresses, layer), room)
    ln_f_weight, ln_f_bias, head, head_scales, head_bias = final
    normalized = room[0][: len(logits)]
    if last_only:
        for b in range(B):
            for d in range(x.shape[1]):
                x[b, d] = x[b * T + T - 1, d]
    layer_norm_rows(x[: len(logits)], ln_f_weight, ln_f_bias, epsilon, normalized)
    product(normalized, head, head_scales, head_bias, logits)


def room(R: int, D: int, F: int, H: int, longest: int) -> tuple[Array, ...]:
    """What a block needs to work in, for R positions that see up to `longest` keys."""
    shapes = ((R, D), (R, 3 * D), (R, H, longest), (R, H, D // H), (R, F), (R, F))
    return tuple(np.empty(shape, np.float32) for shape in shapes)


@cache
def forward(code: str, head: str) -> Any:
    """The compiled forward pass for blocks' and vocabulary's weights kept in these dtypes (``dtype.char``).

    Compiled when first asked for. Called with ``ids`` (B, T), token types of the same shape, or (0, 0), the rows'
    ``lengths`` (B,), whether only each row's last position is asked for, and the ``logits``, (B, V) then and (B · T, V)
    else, that it fills; then ``wte``, ``wpe``, the first layer's keys and values, (B, H, N, K), and its parameters,
    the ``addresses`` of every layer's; the final norm's and the vocabulary's parameters; the layer norms' epsilon,
    ``scales`` (L,), what scores are multiplied by; and room to work in, (B · T, D), (B · T,) int64, and a `room`.
    It writes the new keys and values into the cache, and leaves the lengths as they are.
    """
    linear, norm = (*WEIGHTS[code], vector), (vector, vector)
    layer = types.Tuple((out4, out4, *norm, *linear, *linear, *norm, *linear, *linear))
    final = types.Tuple((*norm, *WEIGHTS[head], vector))
    working = types.Tuple((out2, out2, out3, out3, out2, out2))
    signature = void(ids2, ids2, lengths1, types.boolean, out2, matrix, matrix, layer, types.int64[:, ::1], final,
                     types.float32, vector, out2, types.int64[::1], working)  # fmt: skip
    # Python's lock stays held: not every pool of threads that Numba may have can serve two steps at once.
    return numba.njit(signature, **SERIAL | {"nogil": False})(_forward)

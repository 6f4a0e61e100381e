"""The whole forward pass for few positions in one compiled call: what decoding spends its time on.

The twin of `model.forward`, for GPT-2's own activation and with a cache. Nothing in it is new: it strings together the
kernels of the single operations, so it gives the same bits as they do, without the way back to Python between them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types, void
from numba.extending import register_jitable

from ...system.memory import in_one_piece
from .arithmetic import SERIAL, out3
from .causal import attend
from .compiled import compiled
from .pointwise import gelu_rows, layer_norm_rows
from .product import product
from .tables import layer, others

Array = np.ndarray
ids2 = types.Array(types.int64, 2, "C", readonly=True)


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
    (
        k,
        v,
        ln_1_weight,
        ln_1_bias,
        attn,
        attn_scales,
        attn_bias,
        proj,
        proj_scales,
        proj_bias,
        ln_2_weight,
        ln_2_bias,
        fc,
        fc_scales,
        fc_bias,
        out,
        out_scales,
        out_bias,
    ) = layer
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


def room(R: int, D: int, F: int, H: int, longest: int) -> tuple[Array, ...]:
    """What a block needs to work in, for R positions that see up to `longest` keys."""
    shapes = ((R, D), (R, 3 * D), (R, H, longest), (R, H, D // H), (R, F), (R, F))
    return tuple(in_one_piece(shapes, np.float32))


@cache
def forward(code: str, head: str) -> Any:
    """The compiled forward pass for blocks' and vocabulary's weights kept in these dtypes (``dtype.char``).

    Compiled when first asked for. Called with ``ids`` (B, T), token types of the same shape, or (0, 0), the rows'
    ``lengths`` (B,), and the ``logits``, (B, 1, V) for each row's last position or (B, T, V) for all, that it fills;
    then the layer norms' epsilon, and a `table` each of the layers' arrays and, in one row, of the others. It writes
    the new keys and values into the cache, and adds T to the lengths.
    """

    def run(
        ids: Array, kinds: Array, lengths: Array, logits: Array, epsilon: float, layers: Array, rest: Array
    ) -> None:
        beside = others(head, rest, 0)
        wte, wpe, ln_f_weight, ln_f_bias, vocabulary, grids, bias, scales, x, positions = beside[:10]
        working = beside[10:]
        B, T = ids.shape
        for r in range(B * T):
            b, t = r // T, r % T
            positions[r] = lengths[b] + t
            token, position = wte[ids[b, t]], wpe[positions[r]]
            for d in range(x.shape[1]):
                x[r, d] = token[d] + position[d]
            if len(kinds):
                kind = wte[kinds[b, t]]
                for d in range(x.shape[1]):
                    x[r, d] += kind[d]
        for n in range(len(layers)):
            block(x, positions, epsilon, scales[n], layer(code, layers, n), working)
        if logits.shape[1] < T:
            for b in range(B):
                for d in range(x.shape[1]):
                    x[b, d] = x[b * T + T - 1, d]
        flat = logits.reshape(-1, logits.shape[2])
        normalized = working[0][: len(flat)]
        layer_norm_rows(x[: len(flat)], ln_f_weight, ln_f_bias, epsilon, normalized)
        product(normalized, vocabulary, grids, bias, flat)
        for b in range(B):
            lengths[b] += T

    signature = void(ids2, ids2, types.int64[::1], out3, types.float32, ids2, ids2)
    # Python's lock stays held: not every pool of threads that Numba may have can serve two steps at once.
    return compiled(signature, **SERIAL | {"nogil": False})(run)

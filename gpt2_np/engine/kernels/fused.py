"""The whole forward pass in one compiled call.

The twin of `model.forward`, for GPT-2's own activation. Nothing in it is new: it strings together the kernels of the
single operations, so it gives the same bits as they do, without the way back to Python between them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types, void
from numba.extending import register_jitable

from ...system.memory import in_one_piece
from .arithmetic import SERIAL, out3
from .blocks import alone
from .causal import attend, remember
from .compiled import compiled
from .pointwise import add_on_threads, gelu_on_threads, gelu_rows, layer_norm_on_threads, layer_norm_rows
from .product import product
from .tables import layer, others

Array = np.ndarray
ids2 = types.Array(types.int64, 2, "C", readonly=True)


@register_jitable
def add(x: Array, more: Array) -> None:
    """x += more."""
    if alone(len(x)):
        for r in range(len(x)):
            for d in range(x.shape[1]):
                x[r, d] += more[r, d]
    else:
        add_on_threads(x, more)


@register_jitable
def block(
    x: Array,
    positions: Array,
    epsilon: float,
    scale: float,
    layer: tuple[Array, ...],
    room: tuple[Array, ...],
    ends: int,
) -> None:
    """`model.block` of R positions, in place, with a layer's keys, values and parameters, and a `room`.

    Where `ends` is not 0, only the last position of each of so many rows goes on: x's first rows are those in the end.
    """
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
    normalized, qkv, q, z, hidden = room
    normalize(x, ln_1_weight, ln_1_bias, epsilon, normalized)
    product(normalized, attn, attn_scales, attn_bias, qkv)
    if ends > 0:
        remember(qkv, k, v, positions)
        T = len(x) // ends
        for b in range(ends):
            last = b * T + T - 1
            positions[b] = positions[last]
            for d in range(x.shape[1]):
                x[b, d], q[b, d] = x[last, d], qkv[last, d]
        x, q, positions = x[:ends], q[:ends], positions[:ends]
        normalized, z, hidden = normalized[:ends], z[:ends], hidden[:ends]
        attend(q, k, v, positions, scale, False, z)
    else:
        attend(qkv, k, v, positions, scale, True, z)
    product(z.reshape(x.shape), proj, proj_scales, proj_bias, normalized)
    add(x, normalized)

    normalize(x, ln_2_weight, ln_2_bias, epsilon, normalized)
    product(normalized, fc, fc_scales, fc_bias, hidden)
    activate(hidden)
    product(hidden, out, out_scales, out_bias, normalized)
    add(x, normalized)


@register_jitable
def normalize(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    """Layer norm, by all threads where it is worth waking them."""
    if alone(len(x)):
        layer_norm_rows(x, weight, bias, epsilon, out)
    else:
        layer_norm_on_threads(x, weight, bias, epsilon, out)


@register_jitable
def activate(x: Array) -> None:
    """GPT-2's GELU, in place."""
    if alone(len(x)):
        gelu_rows(x, x)
    else:
        gelu_on_threads(x)


def room(B: int, R: int, D: int, F: int, H: int) -> tuple[Array, ...]:
    """What a block needs to work in, for R positions of B rows."""
    return tuple(in_one_piece(((R, D), (R, 3 * D), (B, D), (R, H, D // H), (R, F)), np.float32))


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
            # Behind the last layer's keys and values no position is read by another.
            ends = B if n == len(layers) - 1 and logits.shape[1] < T else 0
            block(x, positions, epsilon, scales[n], layer(code, layers, n), working, ends)
        flat = logits.reshape(-1, logits.shape[2])
        normalized = working[0][: len(flat)]
        normalize(x[: len(flat)], ln_f_weight, ln_f_bias, epsilon, normalized)
        product(normalized, vocabulary, grids, bias, flat)
        for b in range(B):
            lengths[b] += T

    signature = void(ids2, ids2, types.int64[::1], out3, types.float32, ids2, ids2)
    # Python's lock stays held: not every pool of threads that Numba may have can serve two steps at once.
    return compiled(signature, **SERIAL | {"nogil": False})(run)

"""The whole forward pass in one compiled call.

This is the twin of `model.forward`, for GPT-2's own activation function. It calls the kernels of the single operations
in sequence, and so gives the same bits, without returning to Python in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types, void  # type: ignore[attr-defined]  # numba has carray, but doesn't list it
from numba.extending import register_jitable

from .causal_attention import append_to_cache, attend
from .compiled import PLAIN as PLAIN
from .compiled import entry
from .kernel_types import SERIAL
from .panel_passes import one_thread
from .pointwise import add_on_threads, gelu_on_threads, gelu_rows, layer_norm_on_threads, layer_norm_rows
from .product import product
from .table_arrays import layer, others

Array = np.ndarray


@register_jitable
def add(x: Array, more: Array) -> None:
    """Compute x += more."""
    if one_thread(len(x)):
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
    """Run `model.forward.block` on R positions, in place, with a layer's keys, values and parameters, in working memory
    `room`.

    Where `ends` is not 0, only the last position of each of so many rows goes on, and these become x's first rows.
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
        append_to_cache(qkv, k, v, positions)
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
    """Apply layer norm, on all threads where there are enough rows."""
    if one_thread(len(x)):
        layer_norm_rows(x, weight, bias, epsilon, out)
    else:
        layer_norm_on_threads(x, weight, bias, epsilon, out)


@register_jitable
def activate(x: Array) -> None:
    """Apply GPT-2's GELU in place."""
    if one_thread(len(x)):
        gelu_rows(x, x)
    else:
        gelu_on_threads(x, x)


def forward(code: str, head: str) -> Any:
    """Compile the forward pass for blocks' and unembedding's weights of these dtypes (``dtype.char``).

    It takes ``ids`` (B, T), token types of the same shape or (0, 0), the rows' ``lengths`` (B,), and the ``logits``
    that it fills, (B, 1, V) for each row's last position or (B, T, V) for all; then the layer norms' epsilon, an
    `address_table` of the layers' arrays, and a one-row `address_table` of the others. It writes the new keys and
    values into the cache and adds T to the lengths. What is returned has C's calling convention: `forward_pass` calls
    it.
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
            # After the last layer's keys and values no position reads another one.
            ends = B if n == len(layers) - 1 and logits.shape[1] < T else 0
            block(x, positions, epsilon, scales[n], layer(code, layers, n), working, ends)
        flat = logits.reshape(-1, logits.shape[2])
        normalized = working[0][: len(flat)]
        normalize(x[: len(flat)], ln_f_weight, ln_f_bias, epsilon, normalized)
        product(normalized, vocabulary, grids, bias, flat)
        for b in range(B):
            lengths[b] += T

    run.__qualname__ = f"forward_{code}_{head}"
    if PLAIN:
        return run
    run = register_jitable(run)

    def called(
        ids: Any, kinds: Any, lengths: Any, logits: Any, layers: Any, rest: Any, shapes: Any, epsilon: float
    ) -> None:
        B, T, K, S, V, L, M, N = carray(shapes, (8,))
        run(
            carray(ids, (B, T)),
            carray(kinds, (K * B, K * T)),
            carray(lengths, (B,)),
            carray(logits, (B, S, V)),
            epsilon,
            carray(layers, (L, M)),
            carray(rest, (1, N)),
        )

    ints, floats = types.CPointer(types.int64), types.CPointer(types.float32)
    signature = void(ints, ints, ints, floats, ints, ints, ints, types.float32)
    return entry(signature, run.__qualname__, **SERIAL | {"nogil": False})(called)

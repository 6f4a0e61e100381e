"""One step of decoding: `model.forward` for few positions, each block in one compiled call.

The twin of `model.forward` where nobody watches; `session` chooses it. It gives the same bits as `model.forward` with
`kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .cache import KVCache
from .config import Config
from .kernels import GELU_NEW, streams, unembed
from .kernels.fused import blocks, room
from .kernels.pointwise import layer_norm_rows
from .model import attention_scale
from .params import Block, Linear, Params
from .quantize import Matrix

Array = np.ndarray


def suits(params: Params, config: Config) -> bool:
    """Whether `forward` can run this model, up to `kernels.FEW` positions: GPT-2's own activation, matrices in rows."""
    p = params.h[0]
    matrices = (p.attn.c_attn, p.attn.c_proj, p.mlp.c_fc, p.mlp.c_proj)
    return (config.activation_function in GELU_NEW and params.ln_f.weight.dtype == np.float32
            and all(_suits(linear) for linear in matrices))  # fmt: skip


def _suits(linear: Linear) -> bool:
    return isinstance(linear.weight, Matrix) or streams(linear.weight)


def forward(
    params: Params,
    config: Config,
    ids: Array,
    *,
    cache: KVCache,
    token_type_ids: Array | None = None,
    last_only: bool = False,
) -> Array:
    """The logits after each of the T new positions, (B, T) ids → (B, T, V), or (B, 1, V) with `last_only`.

    As `model.forward`; B · T is at most `kernels.FEW`.
    """
    T = ids.shape[1]
    ready = cache.ready
    if ready is None or ready.params is not params or ready.k is not cache.k or len(ready.rows) != ids.size:
        ready = cache.ready = prepare(params, config, cache, T)
    positions = cache.lengths[ready.rows] + ready.steps
    x = params.wte[ids.ravel()] + params.wpe[positions]
    if token_type_ids is not None:
        x += params.wte[token_type_ids.ravel()]
    ready.blocks(x, positions, *ready.arguments)
    cache.advance(T)
    if last_only and T > 1:
        x = x[T - 1 :: T].copy()
    normalized = np.empty_like(x)
    layer_norm_rows(x, *params.ln_f, config.layer_norm_epsilon, normalized)
    return unembed(normalized.reshape(len(ids), -1, config.n_embd), params.lm_head)


class Ready(NamedTuple):
    """What `forward` calls for these parameters, a cache with these keys, and so many new positions.

    Position r belongs to row ``rows[r]`` of the cache, and is the ``steps[r]``-th of its new ones.
    """

    params: Params
    k: Array
    rows: Array
    steps: Array
    blocks: Any
    arguments: tuple[Any, ...]


def prepare(params: Params, config: Config, cache: KVCache, T: int) -> Ready:
    """The compiled blocks and their arguments, but for those that every step has anew.

    Made once and kept in the cache: between two steps Python finds nothing of its own in the processor's cache, which
    the weights have just gone through, and every array that it looks up meanwhile costs a visit to memory.
    """
    rows, steps = (part.ravel() for part in np.indices((cache.rows, T)))
    layers = [(cache.k[layer], cache.v[layer], *arrays(p)) for layer, p in enumerate(params.h)]
    scales = np.array([attention_scale(config, layer) for layer in range(config.n_layer)], np.float32)
    addresses = np.array([[array.ctypes.data for array in layer] for layer in layers], np.int64)
    working = room(cache.rows * T, config.n_embd, config.mlp_width, config.n_head, cache.capacity)
    arguments = (config.layer_norm_epsilon, scales, layers[0], addresses, working)
    return Ready(params, cache.k, rows, steps, blocks(layers[0][4].dtype.char), arguments)


def arrays(p: Block) -> tuple[Array, ...]:
    """A block's parameters as the kernels take them."""
    return (*p.ln_1, *parts(p.attn.c_attn), *parts(p.attn.c_proj),
            *p.ln_2, *parts(p.mlp.c_fc), *parts(p.mlp.c_proj))  # fmt: skip


NO_SCALES = np.empty((0, 0), np.float32)


def parts(linear: Linear) -> tuple[Array, ...]:
    """An affine map as the kernels take it: codes, scales, bias."""
    weight, bias = linear
    return (weight.codes, weight.scales, bias) if isinstance(weight, Matrix) else (weight, NO_SCALES, bias)

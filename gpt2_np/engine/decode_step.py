"""One step of decoding: `model.forward.forward` for few positions, in one compiled call.

The twin of `model.forward.forward` for runs without taps; `session` chooses it. It gives the same bits as
`model.forward.forward` with `kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..model.arrays import Weight
from ..model.cache import KVCache
from ..model.config import Config
from ..model.forward import attention_scale
from ..model.params import Block, Linear, Params, as_array, matrices
from ..system.memory import empty
from ..weights.quantize import Matrix
from .kernels import FEW, GELU_NEW, fused
from .kernels.matrices import NO_SCALES, zeros
from .kernels.tables import WEIGHTS, table
from .kernels.threads import launch

Array = np.ndarray

__all__ = ["FEW", "Prepared", "forward", "renew", "suits"]


def suits(params: Params, config: Config) -> bool:
    """Whether `forward` can run this model: GPT-2's own activation, all layers alike, outputs down (see `layout`)."""
    if config.activation_function not in GELU_NEW or params.ln_f.weight.dtype != np.float32:
        return False
    p = params.h[0]
    precisions = {parts(linear.weight)[0].dtype.char for linear in matrices(p)}
    if len(precisions) > 1 or not {*precisions, head(params)[0].dtype.char} <= WEIGHTS.keys():
        return False
    layers = [arrays(p) for p in params.h]
    rows = [params.wte, params.wpe, *(array for layer in layers for array in layer), *head(params)]
    kinds = [[(array.shape, array.dtype) for array in layer] for layer in layers]
    return (
        all(array.flags.c_contiguous for array in rows)
        and all(kind == kinds[0] for kind in kinds)
        and params.wte.dtype == params.wpe.dtype == np.float32
    )


def forward(
    params: Params,
    config: Config,
    ids: Array,
    *,
    cache: KVCache,
    token_type_ids: Array | None = None,
    last_only: bool = False,
    prepared: Prepared | None = None,
) -> Array:
    """The logits after each of the T new positions, (B, T) ids → (B, T, V), or (B, 1, V) with `last_only`.

    As `model.forward.forward`; B · T is at most `FEW`. What is `prepared` for another call is prepared anew.
    """
    ready = prepared if prepared is not None and prepared.fits(params, cache, ids.shape) else None
    if ready is None:
        ready = prepare(params, config, cache, *ids.shape)
    logits = np.empty((len(ids), 1 if last_only else ids.shape[1], config.vocab_size), np.float32)
    kinds = NO_TYPES if token_type_ids is None else np.ascontiguousarray(token_type_ids)
    ids = np.ascontiguousarray(ids)
    launch(ready.run, ids, kinds, cache.lengths, logits, config.layer_norm_epsilon, *ready.tables)
    return logits


class Prepared(NamedTuple):
    """What `forward` calls for these parameters, a cache with these keys, and ids of this shape, and what with.

    The tables tell where arrays lie, so the `arrays` are held on to here: it serves in this process only, and no copy
    of the cache.
    """

    params: Params
    k: Array
    shape: tuple[int, int]
    run: Any
    tables: tuple[Array, Array]
    arrays: Any

    def fits(self, params: Params, cache: KVCache, shape: tuple[int, ...]) -> bool:
        """Whether it was made for these."""
        return self.params is params and self.k is cache.k and self.shape == shape


def renew(
    params: Params, config: Config, cache: KVCache, shape: tuple[int, int], before: Prepared | None
) -> Prepared | None:
    """What serves for ids of this shape: what there was `before`, or made now; that too where `forward` isn't for them.

    It is kept from one step of decoding to the next: between two steps Python finds nothing of its own in the
    processor's cache, which the weights have just gone through, and every array that it looks up meanwhile costs a
    visit to memory.
    """
    if shape[0] * shape[1] > FEW or (before is not None and before.fits(params, cache, shape)):
        return before
    return prepare(params, config, cache, *shape)


def prepare(params: Params, config: Config, cache: KVCache, B: int, T: int) -> Prepared:
    """The compiled step and its arguments, but for those that every step has anew."""
    layers = [(cache.k[layer], cache.v[layer], *arrays(p)) for layer, p in enumerate(params.h)]
    scales = np.array([attention_scale(config, layer) for layer in range(config.n_layer)], np.float32)
    x, positions = empty((B * T, config.n_embd), np.float32), np.empty(B * T, np.int64)
    working = fused.room(B * T, config.n_embd, config.mlp_width, config.n_head, cache.capacity)
    others = (
        params.wte,
        params.wpe,
        *params.ln_f,
        *head(params),
        zeros(config.vocab_size),
        scales,
        x,
        positions,
        *working,
    )
    run = fused.forward(parts(params.h[0].attn.c_attn.weight)[0].dtype.char, head(params)[0].dtype.char)
    return Prepared(params, cache.k, (B, T), run, (table(layers), table([others])), (layers, others))


def arrays(p: Block) -> tuple[Array, ...]:
    """A block's parameters as the kernels take them."""
    return (
        *p.ln_1,
        *affine(p.attn.c_attn),
        *affine(p.attn.c_proj),
        *p.ln_2,
        *affine(p.mlp.c_fc),
        *affine(p.mlp.c_proj),
    )


def affine(linear: Linear) -> tuple[Array, ...]:
    """An affine map as the kernels take it: codes, scales, bias."""
    return (*parts(linear.weight), linear.bias)


NO_TYPES = np.empty((0, 0), np.int64)


def parts(weight: Weight) -> tuple[Array, Array]:
    """A matrix as the kernels take it: codes, outputs down, and scales."""
    return (weight.codes, weight.scales) if isinstance(weight, Matrix) else (as_array(weight).T, NO_SCALES)


def head(params: Params) -> tuple[Array, Array]:
    """The vocabulary's matrix as the kernels take it; of float32 the outputs lie down in the checkpoint already."""
    return parts(params.lm_head.T if isinstance(params.lm_head, np.ndarray) else params.lm_head)

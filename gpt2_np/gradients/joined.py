"""`threaded` with a batch's rows joined: each affine map is one matrix product over all their positions.

BLAS then reads a matrix once instead of once per row: for 4 rows of 64, this takes a third off the time. It is not
batch-invariant: a row's bits depend on the rest of its batch, so other runs use `threaded`.
"""

from __future__ import annotations

import numpy as np

from ..engine import threaded
from ..engine.threaded import activate as activate
from ..engine.threaded import centred as centred
from ..engine.threaded import layer_norm as layer_norm
from ..engine.threaded import layer_norm_scale as layer_norm_scale
from ..engine.threaded import scaled_and_shifted as scaled_and_shifted
from ..engine.threaded import softmax as softmax
from ..engine.threaded import split_heads as split_heads
from ..model import ops
from ..model.arrays import Array, Weight
from ..system.memory import empty
from . import heads
from .products import Product, product


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `threaded.linear` over all positions at once."""
    return linear_by(product, x, weight, bias)


def linear_by(product: Product, x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `linear` by this matrix product."""
    rows = _joined(x)
    if not isinstance(weight, np.ndarray):
        return threaded.linear(rows, weight, bias).reshape(*x.shape[:-1], -1)
    out = empty((len(rows), weight.shape[1]), x.dtype)
    return product(rows, weight, out, bias).reshape(*x.shape[:-1], -1)


def unembed(x: Array, lm_head: Weight) -> Array:
    """Compute `threaded.unembed` over all positions at once."""
    return unembed_by(product, x, lm_head)


def unembed_by(product: Product, x: Array, lm_head: Weight) -> Array:
    """Compute `unembed` by this matrix product."""
    rows = _joined(x)
    if not isinstance(lm_head, np.ndarray):
        return threaded.unembed(rows, lm_head).reshape(*x.shape[:-1], -1)
    return product(rows, lm_head.T, empty((len(rows), len(lm_head)), x.dtype), None).reshape(*x.shape[:-1], -1)


def attention_scores(q: Array, k: Array, lengths: Array, scale: float) -> Array:
    """Compute `threaded.attention_scores` head by head."""

    def finish(of_head: Array, b: int) -> None:
        ops.scale_and_hide(of_head, lengths[b : b + 1], scale)

    return heads.scores(q, k.swapaxes(1, 2), finish)


def mix_values(pattern: Array, v: Array) -> Array:
    """Compute `threaded.mix_values` head by head."""
    return heads.product(pattern, v[:, :, : pattern.shape[-1]].swapaxes(1, 2))


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `threaded.attention` with this module's functions."""
    S = int(lengths.max()) + q.shape[1]
    return mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])


def _joined(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])

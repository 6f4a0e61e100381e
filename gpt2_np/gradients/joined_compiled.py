"""`joined` with compiled products, activation and softmax: the forward pass that belongs to `compiled`."""

from __future__ import annotations

from ..engine.kernels import activate as activate
from ..engine.kernels import softmax as softmax
from ..model.arrays import Array, Weight
from . import joined
from .joined import attention_scores as attention_scores
from .joined import centred as centred
from .joined import layer_norm as layer_norm
from .joined import layer_norm_scale as layer_norm_scale
from .joined import mix_values as mix_values
from .joined import scaled_and_shifted as scaled_and_shifted
from .joined import split_heads as split_heads
from .products_compiled import product


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `joined.linear` by the compiled product."""
    return joined.linear(x, weight, bias, product)


def unembed(x: Array, lm_head: Weight) -> Array:
    """Compute `joined.unembed` by the compiled product."""
    return joined.unembed(x, lm_head, product)


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `joined.attention` with this module's softmax."""
    S = int(lengths.max()) + q.shape[1]
    return joined.mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])

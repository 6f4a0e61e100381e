"""`joined` with compiled products, attention, layer norm and activation: `compiled`'s forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine.kernels import activate as activate
from ..engine.kernels import softmax as softmax
from ..engine.kernels.backwards import centred_rows, scale_rows, scaled_and_shifted_rows
from ..engine.kernels.threads import launch
from ..engine.threaded import in_pieces, threads
from ..model.arrays import Array, Weight
from ..system.memory import empty
from . import joined
from .joined import split_heads as split_heads
from .products_compiled import VECTORS, product


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `joined.linear` by the compiled product."""
    return joined.linear_by(product, x, weight, bias)


def unembed(x: Array, lm_head: Weight) -> Array:
    """Compute `joined.unembed` by the compiled product."""
    return joined.unembed_by(product, x, lm_head)


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Compute `ops.layer_norm` by this module's functions, with the bits that a pass with taps has."""
    x = centred(x)
    x /= layer_norm_scale(x, epsilon)
    return scaled_and_shifted(x, weight, bias)


def centred(x: Array) -> Array:
    """Compute `ops.centred` in one pass over each position."""
    return joined.centred(x) if x.dtype != np.float32 else _by_rows(centred_rows, x)


def scaled_and_shifted(normalized: Array, weight: Array, bias: Array) -> Array:
    """Compute `ops.scaled_and_shifted` in one pass over each position."""
    if any(one.dtype != np.float32 for one in (normalized, weight, bias)):
        return joined.scaled_and_shifted(normalized, weight, bias)
    return _by_rows(scaled_and_shifted_rows, normalized, weight, bias)


def layer_norm_scale(centred: Array, epsilon: float) -> Array:
    """Compute `ops.layer_norm_scale` in one pass over each position."""
    if centred.dtype != np.float32:
        return joined.layer_norm_scale(centred, epsilon)
    return _by_rows(scale_rows, centred, epsilon, width=1)


def _by_rows(kernel: Callable[..., object], x: Array, *arguments: Any, width: int = 0) -> Array:
    """Run a kernel on some positions at a time. `width` is the length of its results; 0 means that of the vectors."""
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    out = empty((len(rows), width or x.shape[-1]), np.float32)
    in_pieces(lambda some: kernel(rows[some], *arguments, out[some]), len(rows), rows.size)
    return out.reshape(*x.shape[:-1], -1)


def attention_scores(q: Array, k: Array, lengths: Array, scale: float) -> Array:
    """Compute `joined.attention_scores`; without a past only what a query sees is computed."""
    B, T, H, _ = q.shape
    if not VECTORS or q.dtype != np.float32 or k.shape[2] != T or lengths.any():
        return joined.attention_scores(q, k, lengths, scale)
    from ..engine.kernels.causal_products import causal_scores

    out = empty((B, H, T, T), np.float32)
    launch(causal_scores, q, k.swapaxes(1, 2), scale, out, workers=threads())
    return out


def mix_values(pattern: Array, v: Array) -> Array:
    """Compute `joined.mix_values`, skipping the keys that no query of a block sees."""
    B, H, T, S = pattern.shape
    if not VECTORS or pattern.dtype != np.float32 or S != T or v.shape[2] != T:
        return joined.mix_values(pattern, v)
    from ..engine.kernels.causal_products import causal_means

    out = empty((B, T, H, v.shape[-1]), np.float32)
    launch(causal_means, np.ascontiguousarray(pattern), v.swapaxes(1, 2), out, workers=threads())
    return out


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `joined.attention` with this module's functions."""
    S = int(lengths.max()) + q.shape[1]
    return mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])

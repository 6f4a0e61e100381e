"""`threaded` with compiled products, and with kernels where NumPy would pass over memory many times: the derivatives of
the loss, layer norm, softmax and GELU.

Names and signatures are the same. The kernels take float32 (and GPT-2's own GELU); everything else is `threaded`'s.
"""

from __future__ import annotations

import numpy as np

from ..engine.kernels.backwards import (
    column_sums,
    cross_entropy_rows,
    gelu_backward_rows,
    layer_norm_backward_rows,
    softmax_backward_rows,
)
from ..engine.threaded import in_pieces
from ..model.arrays import Array, Weight
from ..model.ops import GELU_NEW
from ..system.memory import empty
from . import heads, threaded
from .products_compiled import product
from .threaded import activate_parameters as activate_parameters
from .threaded import attention_scores as attention_scores
from .threaded import centred as centred
from .threaded import divided as divided
from .threaded import divided_scale as divided_scale
from .threaded import head_results as head_results
from .threaded import head_results_parameters as head_results_parameters
from .threaded import hide as hide
from .threaded import layer_norm_scale as layer_norm_scale
from .threaded import look_up as look_up
from .threaded import mix_values as mix_values
from .threaded import mix_values_v as mix_values_v
from .threaded import scaled_and_shifted as scaled_and_shifted
from .threaded import softmax as softmax
from .threaded import split_heads as split_heads


def linear(gradient: Array, weight: Weight) -> Array:
    """Compute `threaded.linear` by the compiled product."""
    return threaded.linear_by(product, gradient, weight)


def linear_parameters(gradient: Array, x: Array) -> tuple[Array, Array]:
    """Compute `threaded.linear_parameters` by the compiled product."""
    rows = _rows(gradient)
    return threaded.linear_weight(rows, x, product), _summed(rows)


def unembed(gradient: Array, lm_head: Weight) -> Array:
    """Compute `threaded.unembed` by the compiled product."""
    return threaded.unembed_by(product, gradient, lm_head)


def unembed_parameters(gradient: Array, x: Array) -> Array:
    """Compute `threaded.unembed_parameters` by the compiled product."""
    return threaded.unembed_parameters_by(product, gradient, x)


def cross_entropy(logits: Array, labels: Array, shares: Array, out: Array) -> Array:
    """Compute `derivatives.cross_entropy` in one pass over each position."""
    if any(one.dtype != np.float32 or not one.flags.c_contiguous for one in (logits, shares, out)):
        return threaded.cross_entropy(logits, labels, shares, out)
    losses = np.empty(len(logits))
    cross_entropy_rows(logits, np.ascontiguousarray(labels, np.int64), shares, out, losses)
    return losses


def attention(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Compute `threaded.attention` with a compiled derivative of the softmax."""
    if any(one.dtype != np.float32 for one in (gradient, q, k, v, pattern)):
        return threaded.attention(gradient, q, k, v, pattern, scale)
    return heads.attention(gradient, q, k, v, np.ascontiguousarray(pattern), scale, _softmax)


def _softmax(gradient: Array, p: Array) -> Array:
    softmax_backward_rows(gradient, p)
    return gradient


def scaled_and_shifted_parameters(gradient: Array, normalized: Array) -> tuple[Array, Array]:
    """Compute `threaded.scaled_and_shifted_parameters` in one pass over memory for each of the two."""
    g = _rows(gradient)
    return _summed(g, _rows(normalized)), _summed(g)


def layer_norm(gradient: Array, weight: Array, normalized: Array, scale: Array) -> Array:
    """Compute `derivatives.layer_norm` in one pass over each position."""
    if gradient.dtype != np.float32 or weight.dtype != np.float32:
        return threaded.layer_norm(gradient, weight, normalized, scale)
    g, n, s = _rows(gradient), _rows(normalized), _rows(scale)
    out = empty(g.shape, np.float32)
    in_pieces(lambda some: layer_norm_backward_rows(g[some], weight, n[some], s[some], out[some]), len(g), g.size)
    return out.reshape(gradient.shape)


def activate(gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """Compute `derivatives.activate`; it is compiled for GPT-2's own GELU."""
    if name not in GELU_NEW or gradient.dtype != np.float32:
        return threaded.activate(gradient, x, name, parameters)
    g, before = _rows(gradient), _rows(x)
    out = empty(g.shape, np.float32)
    in_pieces(lambda some: gelu_backward_rows(g[some], before[some], out[some]), len(g), g.size)
    return out.reshape(gradient.shape)


def _summed(x: Array, factor: Array | None = None) -> Array:
    """Compute `threaded.summed`, some columns at a time."""
    if x.dtype != np.float32 or (factor is not None and factor.dtype != np.float32):
        return threaded.summed(x, factor)
    out, other = np.empty(x.shape[1], np.float32), x if factor is None else factor
    in_pieces(lambda some: column_sums(x, other, factor is not None, some.start, some.stop, out), x.shape[1], x.size)
    return out


def _rows(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])

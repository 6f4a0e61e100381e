"""`threaded` with compiled products, and with kernels where NumPy would pass over memory many times: the derivatives of
attention, the loss, layer norm and GELU, sums over positions, and looking up.

Names and signatures are the same. The kernels take float32 (and GPT-2's own GELU); everything else is `threaded`'s.
"""

from __future__ import annotations

import numpy as np

from ..engine.kernels import backwards
from ..engine.kernels.threads import launch, over_rows
from ..engine.threaded import in_pieces, threads
from ..model.arrays import Array, Weight
from ..model.ops import GELU_NEW
from ..system.memory import empty
from . import threaded
from .products_compiled import VECTORS, product
from .threaded import activate_parameters as activate_parameters
from .threaded import attention_scores as attention_scores
from .threaded import centred as centred
from .threaded import divided as divided
from .threaded import divided_scale as divided_scale
from .threaded import head_results as head_results
from .threaded import head_results_parameters as head_results_parameters
from .threaded import hide as hide
from .threaded import layer_norm_scale as layer_norm_scale
from .threaded import mix_values as mix_values
from .threaded import mix_values_v as mix_values_v
from .threaded import scaled_and_shifted as scaled_and_shifted
from .threaded import softmax as softmax


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


def look_up(gradient: Array, ids: Array, table: Array) -> Array:
    """Compute `derivatives.look_up` in one pass over the gradient. ``IndexError`` for an id outside of the table."""
    if gradient.dtype != np.float32 or table.dtype != np.float32 or not table.flags.c_contiguous:
        return threaded.look_up(gradient, ids, table)
    rows, flat = _rows(gradient), np.ascontiguousarray(ids, np.int64).reshape(-1)
    if len(flat) and not 0 <= flat.min() <= flat.max() < len(table):
        raise IndexError(f"ids must be between 0 and {len(table) - 1}, got {flat.min()} to {flat.max()}")
    backwards.look_up_rows(rows, flat, table)
    return table


def cross_entropy(logits: Array, labels: Array, shares: Array, out: Array) -> Array:
    """Compute `derivatives.cross_entropy` in one pass over each position."""
    if any(one.dtype != np.float32 or not one.flags.c_contiguous for one in (logits, shares, out)):
        return threaded.cross_entropy(logits, labels, shares, out)
    arrays = logits, np.ascontiguousarray(labels, np.int64), shares, out, np.empty(len(logits))
    over_rows(backwards.cross_entropy_rows, backwards.cross_entropy_on_threads, *arrays, workers=threads())
    return arrays[-1]


def attention(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Compute `threaded.attention` by kernels, where vectors are wide enough for them."""
    if not VECTORS or any(one.dtype != np.float32 for one in (gradient, q, k, v, pattern)):
        return threaded.attention(gradient, q, k, v, pattern, scale)
    from ..engine.kernels.causal_products import causal_backward

    B, T, H, K = q.shape
    of_q, of_k, of_v = empty((B, T, 3, H, K), np.float32).transpose(2, 0, 1, 3, 4)
    weights = np.ascontiguousarray(pattern)
    launch(causal_backward, gradient, q, k, v, weights, scale, of_q, of_k, of_v, workers=threads())
    return of_q, of_k, of_v


def split_heads(q: Array, k: Array, v: Array) -> Array:
    """Compute `threaded.split_heads`. What `attention` returned stands side by side already, and isn't copied."""
    B, T, H, K = q.shape
    size, width = q.itemsize, H * K * q.itemsize
    strides = (3 * T * width, 3 * width, K * size, size)
    first, second, third = (one.__array_interface__["data"][0] for one in (q, k, v))
    if q.strides == k.strides == v.strides == strides and second - first == third - second == width:
        return np.lib.stride_tricks.as_strided(q, (B, T, 3 * H * K), (strides[0], strides[1], size))
    return threaded.split_heads(q, k, v)


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
    in_pieces(
        lambda some: backwards.layer_norm_backward_rows(g[some], weight, n[some], s[some], out[some]), len(g), g.size
    )
    return out.reshape(gradient.shape)


def activate(gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """Compute `derivatives.activate`; it is compiled for GPT-2's own GELU."""
    if name not in GELU_NEW or gradient.dtype != np.float32:
        return threaded.activate(gradient, x, name, parameters)
    g, before = _rows(gradient), _rows(x)
    out = empty(g.shape, np.float32)
    over_rows(backwards.gelu_backward_rows, backwards.gelu_backward_on_threads, g, before, out, workers=threads())
    return out.reshape(gradient.shape)


def _summed(x: Array, factor: Array | None = None) -> Array:
    """Compute `threaded.summed`, some columns at a time."""
    if x.dtype != np.float32 or (factor is not None and factor.dtype != np.float32):
        return threaded.summed(x, factor)
    arrays = x, x if factor is None else factor, factor is not None, np.empty(x.shape[1], np.float32)
    over_rows(backwards.column_sums, backwards.column_sums_on_threads, *arrays, workers=threads())
    return arrays[-1]


def _rows(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])

"""Jacobians of the last residual stream with respect to the stream after each layer, summed over target positions.

A Jacobian between two streams has (T, D) rows and (T, D) columns. This module computes its sum over the positions of
the rows, as a gradient gives it, and its mean over the positions of the columns: (D, D) a layer. That is D backward
passes, one for each row of the result. They share one run's values, so they go through each layer together:

- The MLP treats positions independently. The Jacobian of a half block, x ↦ x + MLP(norm(x)), is computed once per
  position, (D, D), and multiplied by all D gradients: 10·D³ operations a position, where D separate passes take 16·D³.
- A query's gradient reads only its own position, so it is one (K, K) matrix per position and head.
- Gradients are computed only at the positions that are averaged.
"""

from __future__ import annotations

import numpy as np

from ..engine.threaded import threads
from ..model.activations import ActivationCache
from ..model.forward import attention_scale
from ..model.params import as_array
from ..system.threads import evenly, on_threads, one_blas_thread
from . import derivatives

Array = np.ndarray

# The activations that are read of a run. The first block's own values aren't needed.
READ = (
    "ln1.normalized",
    "ln1.scale",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.pattern",
    "attn.z",
    "ln2.normalized",
    "ln2.scale",
    "mlp.pre",
)
ROWS_PER_TASK = 16  # rows or positions that one thread works on at a time, so that most of it stays in its cache


def names_read(n_layer: int) -> list[str]:
    """Return the names of the activations that `summed_jacobians` needs of a run."""
    return [f"blocks.{layer}.{name}" for layer in range(1, n_layer) for name in READ]


def summed_jacobians(cache: ActivationCache, positions: slice) -> Array:
    """Return Σ over t' of ∂ last stream[t'] / ∂ stream after a layer[t], averaged over t: (L − 1, D, D), float64.

    Layers are all but the last, whose own would be the identity. Both t' and t run over `positions` of one row of ids,
    ``cache`` holding its `names_read`. Rows are the last stream's coordinates, columns the layer's. The streams are
    those that leave blocks (``resid_post``), before the final norm.
    """
    config = cache.config
    found = np.zeros((config.n_layer - 1, config.n_embd, config.n_embd))
    g: Array | None = None
    workers = threads()
    with one_blas_thread():  # each piece of work runs on one thread, BLAS included
        for layer in reversed(range(1, config.n_layer)):
            g = _through_mlp(g, cache, layer, positions, workers)
            _through_attention(g, cache, layer, positions, workers)
            g.mean(axis=0, dtype=np.float64, out=found[layer - 1])
    return found


def _through_mlp(g: Array | None, cache: ActivationCache, layer: int, positions: slice, workers: int) -> Array:
    """Propagate gradients (N, D, D) from a block's output to its MLP half's input; None stands for the identity's."""
    p, config = cache.params.h[layer], cache.config
    pre, n, scale = (cache[name, layer][0, positions] for name in ("mlp.pre", "ln2.normalized", "ln2.scale"))
    slope = derivatives.activate(np.ones_like(pre), pre, config.activation_function, p.mlp.act)
    back_out = np.ascontiguousarray(as_array(p.mlp.c_proj.weight).T)
    back_in = _through_gain(p.ln_2.weight, as_array(p.mlp.c_fc.weight))
    N, D = len(pre), config.n_embd
    result = np.empty((N, D, D), pre.dtype)

    def work(some: slice) -> None:
        for at in range(some.start, some.stop):
            of_half = (back_out * slope[at]) @ back_in
            _through_norm(of_half[None], n[at : at + 1], scale[at : at + 1])
            result[at] = of_half if g is None else g[at] @ of_half
        result[some] += np.eye(D, dtype=pre.dtype) if g is None else g[some]

    on_threads(work, evenly(N, min(N, max(workers, N // ROWS_PER_TASK))), workers)
    return result


def _through_attention(g: Array, cache: ActivationCache, layer: int, positions: slice, workers: int) -> None:
    """Propagate gradients (N, R, D) from the output of a block's attention half to its input, in place."""
    p, config = cache.params.h[layer], cache.config
    (N, R, D), H, K = g.shape, config.n_head, config.head_width
    q, z = (np.ascontiguousarray(cache[name, layer][0, positions].swapaxes(0, 1)) for name in ("attn.q", "attn.z"))
    k, v = (np.ascontiguousarray(cache[name, layer][0].swapaxes(0, 1)) for name in ("attn.k", "attn.v"))
    n, norm_scale = (cache[name, layer][0, positions] for name in ("ln1.normalized", "ln1.scale"))
    pattern = cache["attn.pattern", layer][0, :, positions]
    scale = attention_scale(config, layer)
    back_out = np.ascontiguousarray(as_array(p.attn.c_proj.weight).T)
    back_in = _through_gain(p.ln_1.weight, as_array(p.attn.c_attn.weight))
    to_query = _to_query(pattern, k, v, z, scale)
    there = np.ascontiguousarray(pattern[:, :, positions])
    v_there = np.ascontiguousarray(v[:, positions].swapaxes(1, 2))

    def work(rows: slice) -> None:
        mine = np.ascontiguousarray(g[:, rows])
        r = mine.shape[1]
        of_z = (mine.reshape(N * r, D) @ back_out).reshape(N, r, H, K)
        of_qkv = np.empty((N, r, 3, H, K), g.dtype)
        for head in range(H):
            of_head = np.ascontiguousarray(of_z[:, :, head])
            of_qkv[:, :, 0, head] = of_head @ to_query[head]
            of_scores = (of_head.reshape(N * r, K) @ v_there[head]).reshape(N, r, N)
            of_scores -= of_head @ z[head, :, :, None]
            of_scores *= there[head, :, None]
            of_k = of_scores.reshape(N, r * N).T @ (q[head] * scale)
            of_qkv[:, :, 1, head] = of_k.reshape(r, N, K).swapaxes(0, 1)
            of_qkv[:, :, 2, head] = (there[head].T @ of_head.reshape(N, r * K)).reshape(N, r, K)
        of_input = (of_qkv.reshape(N * r, 3 * D) @ back_in).reshape(N, r, D)
        _through_norm(of_input, n, norm_scale)
        g[:, rows] += of_input

    on_threads(work, evenly(R, min(R, max(workers, R // ROWS_PER_TASK))), workers)


def _to_query(pattern: Array, k: Array, v: Array, z: Array, scale: float) -> Array:
    """Return the map from a head's z to its query, (H, N, K, K): the covariance of values and keys under its pattern.

    S = scale · q·kᵀ and z = P·v, so ∂L/∂q = scale · Σ_s P_s (∂L/∂z · (v_s − z)) k_s.
    """
    H, N, T = pattern.shape
    K = k.shape[-1]
    pairs = (v[..., :, None] * k[..., None, :]).reshape(H, T, K * K)
    mean = (pattern @ pairs).reshape(H, N, K, K)
    mean -= z[..., :, None] * (pattern @ k)[..., None, :]
    mean *= scale
    return mean


def _through_gain(gain: Array, weight: Array) -> Array:
    """Return the map from an affine map's gradient to that of a norm's centred input, up to the norm's scale.

    (outputs, D): the map, the norm's gain and its centring, which are the same for all positions.
    """
    back = weight.T * gain
    back -= back.mean(axis=1, keepdims=True)
    return back


def _through_norm(g: Array, normalized: Array, scale: Array) -> None:
    """The rest of a norm, in place: (g − n·mean(g·n)) / s for gradients (N, rows, D) that are centred already."""
    along = (g @ normalized[:, :, None]) / normalized.shape[-1]
    g -= along * normalized[:, None]
    g /= scale[:, :, None]

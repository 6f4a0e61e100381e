"""The losses of dictionaries in training, and their gradients by hand. Directions have unit length.

    x (n, D) what is read      y (n, O) what is to be predicted, x itself for an autoencoder
    h = (x − b_dec) · W_enc + b_enc     f = features of h      out = f · W_dec + b_dec (+ x · W_skipᵀ)

    topk      mean |out − y|² + a · s · mean |h_aux · W_dec − (y − out)|²     h_aux: the d/2 largest h of dead features
    batchtopk the same, the n · k largest h of the whole batch being the features
    relu      mean |out − y|² + c · mean Σ f
    jumprelu  mean |out − y|² + c · mean Σ [h > θ] + a · mean Σ over dead of max(θ − h, 0)

Means are over the n vectors. They are SAELens's losses (``TrainingSAE.training_forward_pass``) for directions of unit
length. Gao et al. 2024, section 2.4 and A.2; Bussmann et al. 2024, "BatchTopK Sparse Autoencoders"; Bricken et al.
2023; Rajamanoharan et al. 2024, section 3, whose θ, exp of a parameter, learns through a rectangle of the width
`bandwidth`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ....display import described
from ..activation_functions import largest
from .settings import Settings

Array = np.ndarray
Weights = dict[str, Array]


class Step(NamedTuple):
    """The result of a step: its loss and the parts of it, the gradients, which features fired, and the least that one
    did (0 where none did).
    """

    loss: float
    mse: float
    sparsity: float
    auxiliary: float
    l0: float
    explained: float
    gradients: Weights
    fired: Array
    least: float

    def __repr__(self) -> str:
        return described(self)


def loss_and_gradients(
    weights: Weights, x: Array, y: Array, settings: Settings, coefficient: float, dead: Array
) -> Step:
    """One batch: (n, D) and (n, O) vectors, what sparsity costs now, and which features are dead, (F,).

    `weights` are by SAELens's names, JumpReLU's threshold as ``log_threshold``. Gradients are of the same names.
    """
    n, W_enc, W_dec = len(x), weights["W_enc"], weights["W_dec"]
    read = x if settings.is_transcoder else x - weights["b_dec"]
    h = read @ W_enc
    h += weights["b_enc"]
    f = features(h, weights, settings)
    out = f @ W_dec
    out += weights["b_dec"]
    if settings.has_skip:
        out += x @ weights["W_skip"].T
    error = out - y
    of_out = error * (2 / n)
    mse = float((error * error).sum(dtype=np.float64)) / n
    grads: Weights = {"W_dec": f.T @ of_out, "b_dec": of_out.sum(axis=0)}
    if settings.has_skip:
        grads["W_skip"] = of_out.T @ x
    of_f = of_out @ W_dec.T
    on = f != 0
    fired = on.any(axis=0)
    sparsity = auxiliary = 0.0
    if settings.activation == "relu":
        sparsity = coefficient * float(f.sum(dtype=np.float64)) / n
        of_f += coefficient / n
    of_h = np.where(on, of_f, 0).astype(h.dtype, copy=False)
    if settings.activation == "jumprelu":
        sparsity, auxiliary = jumprelu(h, of_f, of_h, weights, settings, coefficient, dead, grads)
    elif "topk" in settings.activation and settings.aux_loss_coefficient and dead.any():
        auxiliary = revive(h, error, of_h, W_dec, settings, dead, grads)
    grads["W_enc"], grads["b_enc"] = read.T @ of_h, of_h.sum(axis=0)
    if not settings.is_transcoder:
        grads["b_dec"] = grads["b_dec"] - W_enc @ grads["b_enc"]
    grads["W_dec"] -= (grads["W_dec"] * W_dec).sum(axis=1, keepdims=True) * W_dec  # lengths stay
    total = float(((y - y.mean(axis=0)) ** 2).sum(dtype=np.float64)) / n
    l0 = float(np.count_nonzero(on)) / n
    explained = 1 - mse / total if total else 0.0
    least = float(f[on].min(initial=np.inf)) if l0 else 0.0
    return Step(mse + sparsity + auxiliary, mse, sparsity, auxiliary, l0, explained, grads, fired, least)


def features(h: Array, weights: Weights, settings: Settings) -> Array:
    """Return the features of pre-activations, (n, F), which are unchanged."""
    if settings.activation == "topk":
        f = np.zeros_like(h)
        places = largest(h, settings.k)
        f[places] = h[places]
        return f
    if settings.activation == "batchtopk":
        count = settings.k * len(h)
        border = np.partition(h, h.size - count, axis=None)[h.size - count]  # what ties with it fires too
        return np.where(h >= max(border, np.finfo(h.dtype).smallest_subnormal), h, 0).astype(h.dtype, copy=False)
    if settings.activation == "jumprelu":
        return np.where(h > np.exp(weights["log_threshold"]), h, 0).astype(h.dtype, copy=False)
    return np.maximum(h, 0)


def jumprelu(
    h: Array,
    of_f: Array,
    of_h: Array,
    weights: Weights,
    settings: Settings,
    coefficient: float,
    dead: Array,
    grads: Weights,
) -> tuple[float, float]:
    """The cost of firing and of dead features; what they add to the gradients of h, in place, and of the threshold.

    Where h is within half a bandwidth of θ, a step at θ has the slope 1 / bandwidth, as far as θ is concerned.
    """
    n, threshold = len(h), np.exp(weights["log_threshold"])
    sparsity = coefficient * float(np.count_nonzero(h > threshold)) / n
    near = np.abs(h - threshold) < settings.jumprelu_bandwidth / 2
    slopes = np.where(near, -(threshold * of_f + coefficient / n) / settings.jumprelu_bandwidth, 0)
    of_threshold = slopes.sum(axis=0)
    auxiliary = 0.0
    if settings.aux_loss_coefficient and dead.any():
        some = np.flatnonzero(dead)
        below = threshold[some] - h[:, some]
        share = settings.aux_loss_coefficient / n
        auxiliary = share * float(np.maximum(below, 0).sum(dtype=np.float64))
        of_h[:, some] -= share * (below > 0)
        of_threshold[some] += share * (below > 0).sum(axis=0)
    grads["log_threshold"] = (of_threshold * threshold).astype(h.dtype, copy=False)
    return sparsity, auxiliary


def revive(h: Array, error: Array, of_h: Array, W_dec: Array, settings: Settings, dead: Array, grads: Weights) -> float:
    """Compute the auxiliary loss: the largest dead features predict what the others miss. Gao et al. 2024, A.2."""
    n, some, most = len(h), np.flatnonzero(dead), max(1, W_dec.shape[1] // 2)
    of_dead = h[:, some]
    count = min(most, len(some))
    chosen = np.argpartition(-of_dead, count - 1, axis=1)[:, :count] if count < len(some) else np.arange(len(some))
    kept = np.zeros(of_dead.shape, bool)
    np.put_along_axis(kept, np.broadcast_to(chosen, (n, count)), True, axis=1)
    acts = np.where(kept, of_dead, 0).astype(h.dtype, copy=False)
    missed = acts @ W_dec[some] + error  # the residual, y − out, counts as given
    weight = settings.aux_loss_coefficient * min(len(some) / most, 1.0)
    of_out = missed * (2 * weight / n)
    grads["W_dec"][some] += acts.T @ of_out
    of_h[:, some] += np.where(kept, of_out @ W_dec[some].T, 0)
    return weight * float((missed * missed).sum(dtype=np.float64)) / n

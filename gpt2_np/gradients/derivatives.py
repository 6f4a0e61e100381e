"""The derivative of every operation in `ops`, in plain NumPy. Read the two files side by side, function by function.

Each function is named after its operation, takes the gradient of the operation's result first, and returns the
gradients of its inputs: ∂L/∂x, given ∂L/∂y where y = f(x), L being the sum of the metric over rows. Gradients of
parameters have functions of their own, ``…_parameters``. Functions take plain arrays and return new ones of the same
dtype. `threaded` holds their twins on every core. All of them follow from the chain rule, ∂L/∂x = (∂y/∂x)ᵀ ∂L/∂y
(Rumelhart et al. 1986; Goodfellow et al. 2016, section 6.5). The top of `model.forward` explains the shape letters.
"""

from __future__ import annotations

import numpy as np

from ..model.arrays import Array, Weight
from ..model.params import as_array
from .activation_derivatives import activate as activate
from .activation_derivatives import activate_parameters as activate_parameters

# ---- affine maps ----------------------------------------------------------------------------------------------------


def linear(gradient: Array, weight: Weight) -> Array:
    """y = x·W + b, so ∂L/∂x = ∂L/∂y · Wᵀ: (…, outputs) → (…, inputs). Goodfellow et al. 2016, section 6.5.6.

    A reduced-precision matrix counts as the numbers that it represents; the rounding of x to its steps is ignored.
    """
    return gradient @ as_array(weight).T


def linear_parameters(gradient: Array, x: Array) -> tuple[Array, Array]:
    """∂L/∂W = xᵀ · ∂L/∂y and ∂L/∂b = Σ ∂L/∂y, over all positions: (inputs, outputs) and (outputs,)."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    return x.reshape(len(rows), -1).T @ rows, rows.sum(axis=0)


def unembed(gradient: Array, lm_head: Weight) -> Array:
    """y = x·Eᵀ, so ∂L/∂x = ∂L/∂y · E: (…, V) → (…, D)."""
    return gradient @ (lm_head if isinstance(lm_head, np.ndarray) else lm_head.dequantize().T)


def unembed_parameters(gradient: Array, x: Array) -> Array:
    """∂L/∂E = (∂L/∂y)ᵀ · x, over all positions: (V, D)."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    return rows.T @ x.reshape(len(rows), -1)


def look_up(gradient: Array, ids: Array, table: Array) -> Array:
    """y = E[ids]: ``table[ids]`` += ∂L/∂y, in place; where an id occurs several times, its gradients add up.

    `gradient` is (…, D), `ids` are (…), `table` is (V, D).
    """
    np.add.at(table, ids, gradient)
    return table


# ---- the loss -------------------------------------------------------------------------------------------------------


def cross_entropy(logits: Array, labels: Array, shares: Array, out: Array) -> Array:
    """ℓ = log Σ e^x − x[label], so ∂(share · ℓ)/∂x = share · (softmax(x) − one-hot(label)). Bishop 2006, eq. 4.109.

    (N, V), (N,), (N,) → ℓ, (N,) float64 nats. The gradient, (N, V), is written into ``out``.
    """
    each = np.arange(len(logits))
    np.subtract(logits, logits.max(axis=-1, keepdims=True), out=out)
    label_logits = out[each, labels]
    np.exp(out, out=out)
    total = out.sum(axis=-1)
    out *= (shares / total)[:, None]
    out[each, labels] -= shares
    return np.asarray(np.log(total.astype(np.float64)) - label_logits)


# ---- layer norm -----------------------------------------------------------------------------------------------------
# y = n·w + b, where n = c / s, c = x − mean(x) and s = √(mean(c²) + ε). Ba et al. 2016, eq. 4, differentiated.


def layer_norm(gradient: Array, weight: Array, normalized: Array, scale: Array) -> Array:
    """The gradient of the norm's input, from that of its result: the steps below in sequence, (…, D).

    In one formula, with g = ∂L/∂y · w:  ∂L/∂x = (g − mean(g) − n·mean(g·n)) / s.
    """
    gradient = scaled_and_shifted(gradient, weight)
    of_scale = divided_scale(gradient, normalized, scale)
    of_centred = divided(gradient, scale)
    of_centred += layer_norm_scale(of_scale, normalized * scale, scale)
    return centred(of_centred)


def scaled_and_shifted(gradient: Array, weight: Array) -> Array:
    """y = n·w + b, so ∂L/∂n = ∂L/∂y · w: (…, D)."""
    return gradient * weight


def scaled_and_shifted_parameters(gradient: Array, normalized: Array) -> tuple[Array, Array]:
    """∂L/∂w = Σ ∂L/∂y · n and ∂L/∂b = Σ ∂L/∂y, over all positions: (D,) twice."""
    D = gradient.shape[-1]
    return (gradient * normalized).reshape(-1, D).sum(axis=0), gradient.reshape(-1, D).sum(axis=0)


def divided(gradient: Array, scale: Array) -> Array:
    """n = c / s, so ∂L/∂c = ∂L/∂n / s, with s held constant: (…, D)."""
    return gradient / scale


def divided_scale(gradient: Array, normalized: Array, scale: Array) -> Array:
    """n = c / s, so ∂L/∂s = −Σ ∂L/∂n · n / s, over the D numbers of a position: (…, 1)."""
    return -(gradient * normalized).sum(axis=-1, keepdims=True) / scale


def layer_norm_scale(gradient: Array, centred: Array, scale: Array) -> Array:
    """s = √(mean(c²) + ε), so ∂L/∂c = ∂L/∂s · c / (D·s): (…, 1) → (…, D). 0 where s is 0."""
    length = centred.shape[-1] * scale
    return np.divide(gradient, length, out=np.zeros_like(gradient), where=length != 0) * centred


def centred(gradient: Array) -> Array:
    """c = x − mean(x), so ∂L/∂x = ∂L/∂c − mean(∂L/∂c): (…, D)."""
    return gradient - gradient.mean(axis=-1, keepdims=True)


# ---- attention ------------------------------------------------------------------------------------------------------
# S = scale · q·kᵀ where the query may see the key, and −∞ elsewhere; P = softmax(S), z = P·v.
# Vaswani et al. 2017, eq. 1; its gradients are written out in Dao et al. 2022 (FlashAttention), appendix B.2.


def attention(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
) -> tuple[Array, Array, Array]:
    """The gradients of queries, keys and values, from that of z: the steps below in sequence.

    (B, T, H, K) four times, pattern (B, H, T, S) → three of (B, T, H, K). There is no past: S is T.
    """
    of_pattern = mix_values(gradient, v)
    of_q, of_k = attention_scores(softmax(of_pattern, pattern), q, k, scale)
    return of_q, of_k, mix_values_v(gradient, pattern)


def mix_values(gradient: Array, v: Array) -> Array:
    """z = P·v, so ∂L/∂P = ∂L/∂z · vᵀ: two of (B, T, H, K) → (B, H, T, S)."""
    return gradient.transpose(0, 2, 1, 3) @ v.transpose(0, 2, 3, 1)


def mix_values_v(gradient: Array, pattern: Array) -> Array:
    """z = P·v, so ∂L/∂v = Pᵀ · ∂L/∂z: (B, T, H, K), (B, H, T, S) → (B, S, H, K)."""
    return np.ascontiguousarray((pattern.swapaxes(2, 3) @ gradient.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3))


def softmax(gradient: Array, p: Array) -> Array:
    """p = softmax(s), so ∂L/∂s = p · (∂L/∂p − Σ p · ∂L/∂p), along the last axis. Where p is 0 so is the result."""
    return (gradient - (gradient * p).sum(axis=-1, keepdims=True)) * p


def hide(gradient: Array) -> Array:
    """The scores of future keys are −∞ whatever queries and keys are, so their gradient is 0. (B, H, T, T).

    `softmax` already gives 0; this is for gradients that a tap has put there.
    """
    return np.tril(gradient)


def attention_scores(gradient: Array, q: Array, k: Array, scale: float) -> tuple[Array, Array]:
    """S = scale · q·kᵀ, so ∂L/∂q = scale · ∂L/∂S · k and ∂L/∂k = scale · (∂L/∂S)ᵀ · q.

    (B, H, T, S), (B, T, H, K), (B, S, H, K) → the shapes of q and k.
    """
    of_q = (gradient @ k.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    of_k = (gradient.swapaxes(2, 3) @ q.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    return of_q * scale, of_k * scale


def split_heads(q: Array, k: Array, v: Array) -> Array:
    """Queries, keys and values are parts of one array: their gradients side by side, (B, T, H, K) → (B, T, 3·D)."""
    B, T = q.shape[:2]
    return np.stack([q, k, v], axis=2).reshape(B, T, -1)


def head_results(gradient: Array, weight: Weight) -> Array:
    """r = z·W, head by head, so ∂L/∂z = ∂L/∂r · Wᵀ: (B, T, H, D) → (B, T, H, K). See `model.head_results`."""
    H, D = gradient.shape[2:]
    per_head = as_array(weight).reshape(H, 1, -1, D)
    return (gradient.transpose(2, 0, 1, 3) @ per_head.swapaxes(2, 3)).transpose(1, 2, 0, 3)


def head_results_parameters(gradient: Array, z: Array) -> Array:
    """r = z·W, head by head, so ∂L/∂W = zᵀ · ∂L/∂r over all positions: (B, T, H, D), (B, T, H, K) → (D, D)."""
    H, D = gradient.shape[2:]
    rows = gradient.reshape(-1, H, D).swapaxes(0, 1)
    return (z.reshape(-1, H, z.shape[-1]).transpose(1, 2, 0) @ rows).reshape(-1, D)

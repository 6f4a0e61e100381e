"""The operations of GPT-2 in plain NumPy, to be read beside the paper.

Functions take plain arrays and return plain arrays of the same dtype (except `log_softmax`). `kernels` holds the
compiled twins of these functions, with the same names and signatures (`operations`). The top of `forward` explains the
shape letters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .arrays import Array, Weight


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Normalise each position to mean 0 and variance 1, then scale and shift: (…, D) → (…, D). Ba et al. 2016, eq.
    4.

    Examples:
        >>> import numpy as np
        >>> from gpt2_np.model.ops import layer_norm
        >>> layer_norm(np.array([1.0, 3.0]), np.ones(2), np.zeros(2), 0.0)
        array([-1.,  1.])
    """
    x = centred(x)
    x /= layer_norm_scale(x, epsilon)
    return scaled_and_shifted(x, weight, bias)


def centred(x: Array) -> Array:
    """Subtract each position's mean: (…, D) → (…, D)."""
    return x - x.mean(axis=-1, keepdims=True)


def layer_norm_scale(centred: Array, epsilon: float) -> Array:
    """Return the divisor of a centred position: its standard deviation, kept away from 0. (…, D) → (…, 1)."""
    return np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon)


def scaled_and_shifted(normalized: Array, weight: Array, bias: Array) -> Array:
    """Apply layer norm's learned gain and bias to each of the D numbers of a position: (…, D) → (…, D)."""
    x = normalized * weight
    x += bias
    return x


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Apply an affine map in GPT-2's orientation: (…, inputs) @ (inputs, outputs) + (outputs,).

    A stand-in for an array (`quantize.Matrix`, in reduced precision) has its own product.
    """
    y = x @ weight if isinstance(weight, np.ndarray) else weight.product(x)
    y += bias
    return y


def unembed(x: Array, lm_head: Weight) -> Array:
    """Return the score of every vocabulary entry: (…, D) against the rows of (V, D) → (…, V)."""
    return x @ lm_head.T if isinstance(lm_head, np.ndarray) else lm_head.product(x)


def softmax(scores: Array) -> Array:
    """Turn scores into probabilities along the last axis; −inf becomes exactly 0.

    Examples:
        >>> import numpy as np
        >>> from gpt2_np.model.ops import softmax
        >>> softmax(np.array([0.0, 0.0, -np.inf]))
        array([0.5, 0.5, 0. ])
    """
    e = scores - scores.max(axis=-1, keepdims=True)
    np.exp(e, out=e)
    e /= e.sum(axis=-1, keepdims=True)
    return e


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities (nats) along the last axis, always in float64: sums of many of them keep their
    digits.
    """
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def log_normalizer(logits: Array) -> Array:
    """Return log Σ e^logit along the last axis (nats): a log-probability is a logit less this. (…, V) → (…), float64.

    Exponentials have the logits' precision and their sum has float64's. Computing both in float64, as `log_softmax`
    does, costs several times as much, for digits that float32 logits don't have.
    """
    top = logits.max(axis=-1)
    total = np.exp(logits - top[..., None]).sum(axis=-1, dtype=np.float64)
    return np.asarray(np.log(total) + top)


def split_heads(x: Array, heads: int) -> tuple[Array, Array, Array]:
    """Split the output of ``c_attn``, (B, T, 3·D), into queries, keys and values: three of (B, T, H, K)."""
    B, T, D3 = x.shape
    q, k, v = x.reshape(B, T, 3, heads, D3 // (3 * heads)).transpose(2, 0, 1, 3, 4)
    return q, k, v


def attention_scores(q: Array, k: Array, lengths: Array, scale: float) -> Array:
    """Return how much each position attends to each earlier one: (B, T, H, K), (B, H, S, K) → (B, H, T, S).

    Row b had ``lengths[b]`` positions before the T new ones, so its query t may see keys 0 … lengths[b] + t; later
    keys, and those after a shorter row's end, get −inf. Vaswani et al. 2017, eq. 1, with the causal mask.
    """
    scores = q.transpose(0, 2, 1, 3) @ k.transpose(0, 1, 3, 2)
    scale_and_hide(scores, lengths, scale)
    return scores


def scale_and_hide(scores: Array, lengths: Array, scale: float) -> None:
    """Scale (B, H, T, S) scores in place, and mask what each query may not see: −inf."""
    T, S = scores.shape[2:]
    scores *= scale
    last_visible = lengths[:, None] + np.arange(T)
    hidden = np.arange(S) > last_visible[:, :, None]
    np.copyto(scores, -np.inf, where=hidden[:, None])


def mix_values(pattern: Array, v: Array) -> Array:
    """Average each head's values, weighted by its attention: (B, H, T, S), (B, H, S, K) → (B, T, H, K)."""
    S = pattern.shape[-1]
    return np.ascontiguousarray((pattern @ v[:, :, :S]).transpose(0, 2, 1, 3))


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute causal attention, (B, T, H, K) against (B, H, N, K) twice → (B, T, H, K). Vaswani et al. 2017, eq. 1.

    ``k`` and ``v`` may be longer than needed: only the first S = max(lengths) + T positions are read.
    """
    S = int(lengths.max()) + q.shape[1]
    return mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])


# ---- activations: transformers' ACT2FN, by its names ---------------------------------------------------------------


ROOT_IN_TEN_DIGITS = 0.7978845608


def gelu_new(x: Array, root: float = math.sqrt(2 / math.pi)) -> Array:
    """GPT-2's own GELU: the tanh form. Hendrycks & Gimpel 2016, section 2."""
    return 0.5 * x * (1 + np.tanh(root * (x + 0.044715 * (x * x * x))))


def gelu_fast(x: Array) -> Array:
    """The same with √(2/π) to ten digits, as transformers' ``FastGELUActivation`` writes it."""
    return gelu_new(x, ROOT_IN_TEN_DIGITS)


def gelu(x: Array) -> Array:
    """The exact GELU, x·Φ(x). Hendrycks & Gimpel 2016, eq. 1."""
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def gelu_10(x: Array) -> Array:
    """The exact GELU held within [−10, 10]."""
    return np.clip(gelu(x), -10, 10)


def erf(x: Array) -> Array:
    """The error function, element by element (NumPy has none)."""
    return np.asarray(_erf(x), dtype=x.dtype)


_erf = np.frompyfunc(math.erf, 1, 1)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), written with tanh so that no exponential can overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def softplus(x: Array) -> Array:
    """ln(1 + e^x)."""
    return np.logaddexp(x, x.dtype.type(0))


def quick_gelu(x: Array) -> Array:
    """x·σ(1.702 x). Hendrycks & Gimpel 2016, section 2."""
    return x * sigmoid(1.702 * x)


def silu(x: Array) -> Array:
    """x·σ(x), also called swish. Elfwing et al. 2017."""
    return x * sigmoid(x)


def hardswish(x: Array) -> Array:
    """x·clip(x + 3, 0, 6) / 6. Howard et al. 2019."""
    return x * np.clip(x + 3, 0, 6) / 6


def laplace(x: Array) -> Array:
    """Φ((x − μ) / σ) with MEGA's constants. Ma et al. 2022, eq. 16."""
    return 0.5 * (1 + erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


def leaky_relu(x: Array) -> Array:
    """x where positive, 0.01·x elsewhere."""
    return np.where(x >= 0, x, x.dtype.type(0.01) * x)


def linear_activation(x: Array) -> Array:
    """x itself."""
    return x


def mish(x: Array) -> Array:
    """x·tanh(softplus(x)). Misra 2019."""
    return x * np.tanh(softplus(x))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu2(x: Array) -> Array:
    """max(x, 0)². So et al. 2021."""
    return np.square(relu(x))


def relu6(x: Array) -> Array:
    """x held within [0, 6]."""
    return np.clip(x, 0, 6)


def sqrtsoftplus(x: Array) -> Array:
    """√softplus(x)."""
    return np.sqrt(softplus(x))


def prelu(x: Array, weight: Array) -> Array:
    """x where positive, weight·x elsewhere, the weight being learned. He et al. 2015."""
    return np.where(x >= 0, x, weight.astype(x.dtype) * x)


def xielu(x: Array, alpha_p: Array, alpha_n: Array) -> Array:
    """A learned quadratic above 0, a learned exponential below. Huang & Schlag 2024, eq. 9 (β = 0.5, ε = −1e−6).

    transformers keeps α, β and ε in bfloat16, and so what it computes from these alone; in float64 it does not.
    """
    rise, fall = xielu_alphas(x.dtype, alpha_p, alpha_n)
    beta, epsilon = XIELU_BETA, x.dtype.type(XIELU_EPSILON)
    below = (np.expm1(np.minimum(x, epsilon)) - x) * fall + beta * x
    return np.where(x > 0, rise * x * x + beta * x, below)


XIELU_BETA, XIELU_EPSILON = 0.5, -9.98377799987793e-07  # −1e−6 rounded to bfloat16


def xielu_alphas(dtype: np.dtype, alpha_p: Array, alpha_n: Array) -> tuple[Array, Array]:
    """Return xIELU's two factors, of the quadratic and of the exponential, from its parameters: (1,) twice."""
    rounded = to_bfloat16 if dtype == np.float32 else np.asarray
    rise = rounded(softplus(alpha_p.astype(dtype)))
    return rise, rounded(XIELU_BETA + rounded(softplus(alpha_n.astype(dtype))))


def to_bfloat16(x: Array) -> Array:
    """Round float32 to the nearest value that bfloat16 can hold, ties to even; the result is still float32.

    NaN stays NaN.
    """
    bits = x.view(np.uint32)
    nearest = (bits >> 16) & 1
    nearest += 0x7FFF
    nearest += bits
    nearest &= 0xFFFF0000
    missing = np.isnan(x)
    return np.where(missing, x, nearest.view(np.float32)) if missing.any() else nearest.view(np.float32)


ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "gelu": gelu,
    "gelu_10": gelu_10,
    "gelu_fast": gelu_fast,
    "gelu_new": gelu_new,
    "gelu_python": gelu,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python_tanh": gelu_new,
    "gelu_accurate": gelu_new,
    "hardswish": hardswish,
    "laplace": laplace,
    "leaky_relu": leaky_relu,
    "linear": linear_activation,
    "mish": mish,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "relu2": relu2,
    "relu6": relu6,
    "sigmoid": sigmoid,
    "silu": silu,
    "sqrtsoftplus": sqrtsoftplus,
    "swish": silu,
    "tanh": np.tanh,
    "prelu": prelu,
    "xielu": xielu,
}
# The names of GPT-2's own GELU; `gelu_fast` is equal to it in float32's precision.
GELU_NEW = tuple(name for name, one in ACTIVATIONS.items() if one in (gelu_new, gelu_fast))


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """Apply the activation function that ``config.activation_function`` names: (…, F) → (…, F)."""
    return ACTIVATIONS[name](x, *parameters)

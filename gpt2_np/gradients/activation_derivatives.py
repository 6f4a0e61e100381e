"""The derivatives of the activation functions in `ops`, under the same names: each is f′(x), element by element.

Where a function has a kink, the value at the kink is torch's. The two activations with learned parameters also have the
derivatives with respect to these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..model import ops

Array = np.ndarray


def gelu_new(x: Array, root: float = math.sqrt(2 / math.pi)) -> Array:
    """½(1 + t) + ½x(1 − t²)·u′, where t = tanh(u) and u = √(2/π)·(x + 0.044715 x³)."""
    square = x * x
    t = np.tanh(root * (x + 0.044715 * (square * x)))
    slope = root + 3 * root * 0.044715 * square
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope


def gelu_fast(x: Array) -> Array:
    """The same with √(2/π) to ten digits, as in `ops.gelu_fast`."""
    return gelu_new(x, ops.ROOT_IN_TEN_DIGITS)


def gelu(x: Array) -> Array:
    """Φ(x) + x·φ(x), with the normal distribution's φ(x) = e^(−x²/2) / √(2π)."""
    return 0.5 * (1 + ops.erf(x * math.sqrt(0.5))) + x * np.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))


def gelu_10(x: Array) -> Array:
    """The derivative of `gelu` where it lies within [−10, 10], 0 elsewhere."""
    return np.where(np.abs(ops.gelu(x)) <= 10, gelu(x), 0).astype(x.dtype, copy=False)


def sigmoid(x: Array) -> Array:
    """σ(x)·(1 − σ(x)), written as σ(x)·σ(−x) so that nothing cancels."""
    return ops.sigmoid(x) * ops.sigmoid(-x)


def quick_gelu(x: Array) -> Array:
    """σ(u)·(1 + u·(1 − σ(u))), where u = 1.702 x."""
    u = 1.702 * x
    return silu(u)


def silu(x: Array) -> Array:
    """σ(x)·(1 + x·(1 − σ(x)))."""
    s = ops.sigmoid(x)
    return s * (1 + x * (1 - s))


def hardswish(x: Array) -> Array:
    """0 up to −3, 1 from 3 on, x/3 + ½ between."""
    return np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)).astype(x.dtype, copy=False)


def laplace(x: Array) -> Array:
    """The normal density around μ, φ((x − μ) / σ) / σ, with MEGA's constants."""
    u = (x - 0.707107) / 0.282095
    return np.exp(-0.5 * (u * u)) * (1 / (0.282095 * math.sqrt(2 * math.pi)))


def leaky_relu(x: Array) -> Array:
    """1 where x is positive, 0.01 elsewhere."""
    return np.where(x > 0, x.dtype.type(1), x.dtype.type(0.01))


def linear_activation(x: Array) -> Array:
    """1."""
    return np.ones_like(x)


def mish(x: Array) -> Array:
    """t + x·(1 − t²)·σ(x), where t = tanh(softplus(x))."""
    t = np.tanh(ops.softplus(x))
    return t + x * (1 - t * t) * ops.sigmoid(x)


def relu(x: Array) -> Array:
    """1 where x is positive, 0 elsewhere."""
    return (x > 0).astype(x.dtype)


def relu2(x: Array) -> Array:
    """2·max(x, 0)."""
    return 2 * ops.relu(x)


def relu6(x: Array) -> Array:
    """1 between 0 and 6, 0 elsewhere."""
    return ((x > 0) & (x < 6)).astype(x.dtype)


def sqrtsoftplus(x: Array) -> Array:
    """σ(x) / (2·√softplus(x)); 0 where softplus(x) is too small to be told from 0."""
    root = ops.sqrtsoftplus(x)
    return np.divide(ops.sigmoid(x), 2 * root, out=np.zeros_like(x), where=root != 0)


def tanh(x: Array) -> Array:
    """1 − tanh(x)²."""
    t = np.tanh(x)
    return 1 - t * t


def prelu(x: Array, weight: Array) -> Array:
    """1 where x is positive, the learned weight elsewhere."""
    return np.where(x > 0, x.dtype.type(1), weight.astype(x.dtype))


def xielu(x: Array, alpha_p: Array, alpha_n: Array) -> Array:
    """2·α·x + β above 0; α·(e^min(x, ε)·[x < ε] − 1) + β below. The two α as in `ops.xielu`."""
    rise, fall = ops.xielu_alphas(x.dtype, alpha_p, alpha_n)
    beta, epsilon = ops.XIELU_BETA, x.dtype.type(ops.XIELU_EPSILON)
    below = np.where(x < epsilon, np.expm1(np.minimum(x, epsilon)), x.dtype.type(-1)) * fall + beta
    return np.where(x > 0, 2 * rise * x + beta, below)


# `ops` maps the names of a configuration to functions; the derivatives have the same names here.
DERIVATIVES: dict[str, Callable[..., Array]] = {
    name: globals()[function.__name__] for name, function in ops.ACTIVATIONS.items()
}


def activate(gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """y = f(x), so ∂L/∂x = ∂L/∂y · f′(x), f being ``config.activation_function``: (…, F) twice → (…, F)."""
    return gradient * DERIVATIVES[name](x, *parameters)


# ---- learned parameters of activations ------------------------------------------------------------------------------


def prelu_parameters(gradient: Array, x: Array, weight: Array) -> tuple[Array, ...]:
    """∂y/∂weight is x where x isn't positive, and 0 elsewhere: (1,)."""
    return ((gradient * np.minimum(x, 0)).sum().reshape(1),)


def xielu_parameters(gradient: Array, x: Array, alpha_p: Array, alpha_n: Array) -> tuple[Array, ...]:
    """∂y/∂α is x² above 0, e^min(x, ε) − 1 − x below; each α is a softplus, whose derivative is σ: two of (1,).

    transformers' rounding of α to bfloat16 counts as no change at all, as it does in torch.
    """
    epsilon = x.dtype.type(ops.XIELU_EPSILON)
    rise = np.where(x > 0, x * x, 0)
    fall = np.where(x > 0, 0, np.expm1(np.minimum(x, epsilon)) - x)
    return (
        (gradient * rise).sum().reshape(1) * ops.sigmoid(alpha_p.astype(x.dtype)),
        (gradient * fall).sum().reshape(1) * ops.sigmoid(alpha_n.astype(x.dtype)),
    )


LEARNED: dict[str, Callable[..., tuple[Array, ...]]] = {"prelu": prelu_parameters, "xielu": xielu_parameters}


def activate_parameters(gradient: Array, x: Array, name: str, parameters: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the gradients of an activation's own parameters, in the order of ``MLP.act``; () if it has none."""
    return LEARNED[name](gradient, x, *parameters) if name in LEARNED else ()

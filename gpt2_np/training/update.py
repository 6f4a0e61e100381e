"""The formula of AdamW on one piece of one tensor, in NumPy. `kernels.adamw` is its compiled twin."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Constants(NamedTuple):
    """The numbers of a step's update besides the arrays. They are Python floats, so that the arrays' dtype is kept."""

    kept: float  # 1 − ηλ: what decoupled decay leaves of a parameter
    rate: float  # η / (1 − β₁ᵗ)
    beta1: float
    beta2: float
    root: float  # √(1 − β₂ᵗ)
    epsilon: float
    scale: float  # what every gradient is multiplied by first: clipping's


def constants(
    step: int, learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float, scale: float
) -> Constants:
    """Return the constants of step number `step`, which counts from 1."""
    beta1, beta2 = betas
    kept, root = 1 - learning_rate * weight_decay, math.sqrt(1 - beta2**step)
    return Constants(kept, learning_rate / (1 - beta1**step), beta1, beta2, root, epsilon, scale)


def adamw(parameter: Array, gradient: Array, mean: Array, square: Array, c: Constants) -> None:
    """Do one step in place: all arguments are (n,) arrays of one dtype, of which only `gradient` is left unchanged.

    θ ← (1 − ηλ)θ;  m ← m + (1 − β₁)(g − m);  v ← β₂v + (1 − β₂)g²;  θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)

    Loshchilov & Hutter 2019, algorithm 2, in the order of operations of ``torch.optim.AdamW``.
    """
    g = gradient if c.scale == 1 else gradient * c.scale
    parameter *= c.kept
    mean += (g - mean) * (1 - c.beta1)
    square *= c.beta2
    square += g * (1 - c.beta2) * g
    divisor = np.sqrt(square)
    divisor /= c.root
    divisor += c.epsilon
    np.divide(mean, divisor, out=divisor)
    divisor *= c.rate
    parameter -= divisor

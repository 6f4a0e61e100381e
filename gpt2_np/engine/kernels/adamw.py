"""AdamW's update in one pass over memory: each number is read once, and written once if it changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types, void

from .compiled import compiled
from .kernel_types import SERIAL, out1, vector

Array = np.ndarray
number = types.float32


@compiled(void(out1, vector, out1, out1, number, number, number, number, number, number, number, number), **SERIAL)
def adamw_row(
    parameter: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    kept: float,
    rate: float,
    new1: float,
    beta2: float,
    new2: float,
    root: float,
    epsilon: float,
    scale: float,
) -> None:
    inverse = np.float32(1) / root
    for i in range(parameter.shape[0]):
        g = gradient[i] * scale
        m = mean[i] + (g - mean[i]) * new1
        v = square[i] * beta2 + g * new2 * g
        mean[i] = m
        square[i] = v
        parameter[i] = parameter[i] * kept - rate * m / (np.float32(math.sqrt(v)) * inverse + epsilon)


def adamw(parameter: Array, gradient: Array, mean: Array, square: Array, c: Any) -> None:
    """Compute `training.update.adamw` in float32."""
    adamw_row(
        parameter, gradient, mean, square, c.kept, c.rate, 1 - c.beta1, c.beta2, 1 - c.beta2, c.root, c.epsilon, c.scale
    )

"""AdamW's update in one pass over memory: each number is read once, and written once if it changes."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numba import prange, void

from .compiled import compiled
from .kernel_types import PARALLEL_NOGIL, SERIAL, out1, vector
from .threads import over_rows

Array = np.ndarray
PIECE = 1 << 14  # numbers that a thread updates at a time
update = void(out1, vector, out1, out1, vector)


@compiled(update, **SERIAL)
def adamw_row(parameter: Array, gradient: Array, mean: Array, square: Array, numbers: Array) -> None:
    """Update (n,) numbers; ``numbers`` are `adamw`'s constants."""
    kept, rate, new1, beta2 = numbers[0], numbers[1], numbers[2], numbers[3]
    new2, root, epsilon, scale = numbers[4], numbers[5], numbers[6], numbers[7]
    inverse = np.float32(1) / root
    for i in range(parameter.shape[0]):
        g = gradient[i] * scale
        m = mean[i] + (g - mean[i]) * new1
        v = square[i] * beta2 + g * new2 * g
        mean[i] = m
        square[i] = v
        parameter[i] = parameter[i] * kept - rate * m / (np.float32(math.sqrt(v)) * inverse + epsilon)


@compiled(update, **PARALLEL_NOGIL)
def adamw_on_threads(parameter: Array, gradient: Array, mean: Array, square: Array, numbers: Array) -> None:
    """Run `adamw_row` on PIECE numbers at a time, on all threads."""
    for part in prange((len(parameter) + PIECE - 1) // PIECE):
        some = slice(part * PIECE, min(len(parameter), part * PIECE + PIECE))
        adamw_row(parameter[some], gradient[some], mean[some], square[some], numbers)


def adamw(parameter: Array, gradient: Array, mean: Array, square: Array, c: Any, workers: int = sys.maxsize) -> None:
    """Compute `training.update.adamw` in float32, on so many threads at most."""
    numbers = c.kept, c.rate, 1 - c.beta1, c.beta2, 1 - c.beta2, c.root, c.epsilon, c.scale
    arrays = parameter, gradient, mean, square, np.array(numbers, np.float32)
    over_rows(adamw_row, adamw_on_threads, *arrays, workers=workers)

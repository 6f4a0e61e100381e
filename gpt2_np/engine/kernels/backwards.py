"""Kernels of derivatives that treat positions independently: those of layer norm and of GPT-2's own GELU."""

from __future__ import annotations

import numpy as np
from numba import void

from .compiled import compiled
from .dot_products import dot
from .exponential import exp
from .kernel_types import SERIAL, matrix, out2, vector

Array = np.ndarray


@compiled(void(matrix, matrix, out2), **SERIAL)
def gelu_backward_rows(gradient: Array, x: Array, out: Array) -> None:
    """gradient · f′(x), where f(x) = x·σ(w) and w = 2·√(2/π)·(x + 0.044715 x³): f′ = σ·(1 + x·(1 − σ)·w′)."""
    for row in range(x.shape[0]):
        for f in range(x.shape[1]):
            u = x[row, f]
            square = u * u
            w = np.float32(1.5957691216) * (u + np.float32(0.044715) * square * u)
            slope = np.float32(1.5957691216) + np.float32(3 * 1.5957691216 * 0.044715) * square
            s = np.float32(1) / (np.float32(1) + exp(-w))
            out[row, f] = gradient[row, f] * (s * (np.float32(1) + u * (np.float32(1) - s) * slope))


@compiled(void(matrix, vector, matrix, matrix, out2), **SERIAL)
def layer_norm_backward_rows(gradient: Array, weight: Array, normalized: Array, scale: Array, out: Array) -> None:
    """y = (g − n·mean(g·n)) / s, less its mean, where g = gradient · weight; ``scale`` is (rows, 1)."""
    D = gradient.shape[1]
    ones = np.ones((1, D), np.float32)
    for row in range(gradient.shape[0]):
        for d in range(D):
            out[row, d] = gradient[row, d] * weight[d]
        along = dot(out, row, normalized, row, 0, D) / np.float32(D)
        inverse = np.float32(1) / scale[row, 0]
        for d in range(D):
            out[row, d] = (out[row, d] - normalized[row, d] * along) * inverse
        mean = dot(out, row, ones, 0, 0, D) / np.float32(D)
        for d in range(D):
            out[row, d] -= mean

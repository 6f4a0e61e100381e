"""Kernels that visit each position once: layer norm, softmax, GELU."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import prange, types, void

from .. import ops
from .arithmetic import FAST, exp, matrix, out2, vector

Array = np.ndarray


@numba.njit(void(matrix, vector, vector, types.float32, out2), fastmath=FAST, cache=True, parallel=False)
def _layer_norm(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    D = x.shape[1]
    for row in range(x.shape[0]):
        total = np.float32(0)
        for d in range(D):
            total += x[row, d]
        mean = total / np.float32(D)
        squares = np.float32(0)
        for d in range(D):
            squares += (x[row, d] - mean) * (x[row, d] - mean)
        scale = np.float32(1) / np.float32(math.sqrt(squares / np.float32(D) + epsilon))
        for d in range(D):
            out[row, d] = (x[row, d] - mean) * scale * weight[d] + bias[d]


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """As `ops.layer_norm`, in one visit to each position."""
    if x.dtype != np.float32:
        return ops.layer_norm(x, weight, bias, epsilon)
    out = np.empty(x.shape, np.float32)
    _layer_norm(np.ascontiguousarray(x).reshape(-1, x.shape[-1]), weight, bias, epsilon, out.reshape(-1, x.shape[-1]))
    return out


@numba.njit(void(out2), fastmath=FAST, cache=True, parallel=True)
def _gelu_new(x: Array) -> None:
    for row in prange(x.shape[0]):
        for f in range(x.shape[1]):
            u = x[row, f]
            inner = np.float32(1.5957691216) * (u + np.float32(0.044715) * u * u * u)
            x[row, f] = u / (np.float32(1) + exp(-inner))


def gelu_new(x: Array) -> Array:
    """As `ops.gelu_new`: x·½(1 + tanh u) is x·σ(2u), which needs one exponential."""
    if x.dtype != np.float32:
        return ops.gelu_new(x)
    out = np.array(x, order="C")
    _gelu_new(out.reshape(-1, _piece(out.size)))
    return out


def _piece(size: int) -> int:
    """How many elements of an array of `size` one thread takes at a time: a divisor of it near a thousand."""
    return math.gcd(size, 1536) if math.gcd(size, 1536) >= 256 else size


GELU_NEW = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate")


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """As `ops.activate`; compiled for GPT-2's own GELU, readable for the others."""
    return gelu_new(x) if name in GELU_NEW else ops.activate(x, name, parameters)


@numba.njit(void(out2), fastmath=FAST, cache=True, parallel=True)
def _softmax(scores: Array) -> None:
    for row in prange(scores.shape[0]):
        best = np.float32(-np.inf)
        for s in range(scores.shape[1]):
            best = max(best, scores[row, s])
        total = np.float32(0)
        for s in range(scores.shape[1]):
            # Minus infinity must become exactly 0, which the clamped exponential doesn't give.
            e = exp(scores[row, s] - best)
            e = e if scores[row, s] - best > np.float32(-87) else np.float32(0)
            scores[row, s] = e
            total += e
        scale = np.float32(1) / total
        for s in range(scores.shape[1]):
            scores[row, s] *= scale


def softmax(scores: Array) -> Array:
    """As `ops.softmax`; what lies 87 below the best, e^−87 of it, counts as 0."""
    if scores.dtype != np.float32:
        return ops.softmax(scores)
    out = np.array(scores, order="C")
    _softmax(out.reshape(-1, out.shape[-1]))
    return out

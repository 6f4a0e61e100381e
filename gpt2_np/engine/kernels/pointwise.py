"""Kernels that visit each position once: layer norm, softmax, GELU."""

from __future__ import annotations

import math

import numpy as np
from numba import prange, types, void

from ...model import ops
from ...system.memory import empty
from .arithmetic import PARALLEL, SERIAL, matrix, out2, vector
from .blocks import SHARE
from .compiled import compiled
from .dots import dot
from .exponentials import exp_and_sum, gelu_row, largest
from .threads import in_threads, slices

Array = np.ndarray


@compiled(void(matrix, vector, vector, types.float32, out2), **SERIAL)
def layer_norm_rows(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    D = x.shape[1]
    ones = np.ones((1, D), np.float32)
    for row in range(x.shape[0]):
        mean = dot(x, row, ones, 0, 0, D) / np.float32(D)
        for d in range(D):
            out[row, d] = x[row, d] - mean
        variance = dot(out, row, out, row, 0, D) / np.float32(D)
        scale = np.float32(1) / np.float32(math.sqrt(variance + epsilon))
        for d in range(D):
            out[row, d] = out[row, d] * scale * weight[d] + bias[d]


@compiled(void(matrix, vector, vector, types.float32, out2), **PARALLEL)
def layer_norm_on_threads(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    """`layer_norm_rows`, SHARE rows at a time."""
    for part in prange((len(x) + SHARE - 1) // SHARE):
        some = slice(part * SHARE, min(len(x), part * SHARE + SHARE))
        layer_norm_rows(x[some], weight, bias, epsilon, out[some])


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """As `ops.layer_norm`, in one visit to each position."""
    if x.dtype != np.float32:
        return ops.layer_norm(x, weight, bias, epsilon)
    out, D = empty(x.shape, np.float32), x.shape[-1]
    source, target = np.ascontiguousarray(x).reshape(-1, D), out.reshape(-1, D)
    in_threads(lambda part: layer_norm_rows(source[part], weight, bias, epsilon, target[part]), slices(len(source)))
    return out


@compiled(void(matrix, out2), **SERIAL)
def gelu_rows(x: Array, out: Array) -> None:
    """GPT-2's GELU of every row."""
    for row in range(x.shape[0]):
        gelu_row(x, row, out)


@compiled(void(out2), **PARALLEL)
def gelu_on_threads(x: Array) -> None:
    """`gelu_rows` in place, SHARE rows at a time."""
    for part in prange((len(x) + SHARE - 1) // SHARE):
        some = slice(part * SHARE, min(len(x), part * SHARE + SHARE))
        gelu_rows(x[some], x[some])


@compiled(void(out2, matrix), **PARALLEL)
def add_on_threads(x: Array, more: Array) -> None:
    """x += more, SHARE rows at a time."""
    for part in prange((len(x) + SHARE - 1) // SHARE):
        for r in range(part * SHARE, min(len(x), part * SHARE + SHARE)):
            for d in range(x.shape[1]):
                x[r, d] += more[r, d]


def gelu_new(x: Array) -> Array:
    """As `ops.gelu_new`."""
    if x.dtype != np.float32:
        return ops.gelu_new(x)
    out, F = empty(x.shape, np.float32), x.shape[-1]
    source, target = np.ascontiguousarray(x).reshape(-1, F), out.reshape(-1, F)
    in_threads(lambda part: gelu_rows(source[part], target[part]), slices(len(source)))
    return out


# The names of GPT-2's own GELU; `gelu_fast` is the same to float32's precision.
GELU_NEW = tuple(name for name, one in ops.ACTIVATIONS.items() if one in (ops.gelu_new, ops.gelu_fast))


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """As `ops.activate`; compiled for GPT-2's own GELU, readable for the others."""
    return gelu_new(x) if name in GELU_NEW and x.dtype == np.float32 else ops.activate(x, name, parameters)


@compiled(void(matrix, out2), **SERIAL)
def softmax_rows(scores: Array, out: Array) -> None:
    """`ops.softmax`, a row at a time; what is hidden, −∞, is exactly 0."""
    S = scores.shape[1]
    for row in range(scores.shape[0]):
        best = largest(scores, row, S)
        for s in range(S):
            out[row, s] = scores[row, s]
        share = np.float32(1) / exp_and_sum(out, row, S, best)
        for s in range(S):
            out[row, s] = out[row, s] * share if scores[row, s] > np.float32(-np.inf) else np.float32(0)


def softmax(scores: Array) -> Array:
    """As `ops.softmax`, in one visit to each query."""
    if scores.dtype != np.float32:
        return ops.softmax(scores)
    out, S = empty(scores.shape, np.float32), scores.shape[-1]
    source, target = np.ascontiguousarray(scores).reshape(-1, S), out.reshape(-1, S)
    in_threads(lambda part: softmax_rows(source[part], target[part]), slices(len(source)))
    return out

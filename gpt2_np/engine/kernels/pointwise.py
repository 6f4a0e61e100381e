"""Kernels that visit each position once: layer norm, softmax, GELU."""

from __future__ import annotations

import math

import numpy as np
from numba import types, void

from ...model import ops
from ...system.memory import empty
from .arithmetic import SERIAL, exp, lengths1, matrix, out2, out4, vector
from .compiled import compiled
from .dots import dot_near
from .threads import in_threads, slices

Array = np.ndarray


@compiled(void(matrix, vector, vector, types.float32, out2), **SERIAL)
def layer_norm_rows(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    D = x.shape[1]
    ones = np.ones((1, D), np.float32)
    for row in range(x.shape[0]):
        mean = dot_near(x, row, ones, 0, 0, D) / np.float32(D)
        for d in range(D):
            out[row, d] = x[row, d] - mean
        variance = dot_near(out, row, out, row, 0, D) / np.float32(D)
        scale = np.float32(1) / np.float32(math.sqrt(variance + epsilon))
        for d in range(D):
            out[row, d] = out[row, d] * scale * weight[d] + bias[d]


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
    for row in range(x.shape[0]):
        for f in range(x.shape[1]):
            u = x[row, f]
            inner = np.float32(1.5957691216) * (u + np.float32(0.044715) * u * u * u)
            out[row, f] = u / (np.float32(1) + exp(-inner))


def gelu_new(x: Array) -> Array:
    """As `ops.gelu_new`: x·½(1 + tanh u) is x·σ(2u), which needs one exponential."""
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
    ones = np.ones((1, S), np.float32)
    for row in range(scores.shape[0]):
        best = np.float32(-np.inf)
        for s in range(S):
            best = max(best, scores[row, s])
        for s in range(S):
            shifted = scores[row, s] - best
            out[row, s] = exp(shifted) if shifted > np.float32(-87) else np.float32(0)
        share = np.float32(1) / dot_near(out, row, ones, 0, 0, S)
        for s in range(S):
            out[row, s] *= share


def softmax(scores: Array) -> Array:
    """As `ops.softmax`, in one visit to each query."""
    if scores.dtype != np.float32:
        return ops.softmax(scores)
    out, S = empty(scores.shape, np.float32), scores.shape[-1]
    source, target = np.ascontiguousarray(scores).reshape(-1, S), out.reshape(-1, S)
    in_threads(lambda part: softmax_rows(source[part], target[part]), slices(len(source)))
    return out


@compiled(void(out4, lengths1, types.float32), **SERIAL)
def _softmax_causal(scores: Array, lengths: Array, scale: float) -> None:
    B, H, T, S = scores.shape
    ones = np.ones((1, S), np.float32)
    for task in range(B * H * T):
        b, h, t = task // (H * T), task // T % H, task % T
        row, visible = scores[b, h, t], min(S, lengths[b] + t + 1)
        best = np.float32(-np.inf)
        for s in range(visible):
            best = max(best, row[s])
        for s in range(visible):
            row[s] = exp((row[s] - best) * scale)
        share = np.float32(1) / dot_near(scores[b, h], t, ones, 0, 0, visible)
        for s in range(visible):
            row[s] *= share
        for s in range(visible, S):
            row[s] = np.float32(0)


def softmax_causal(scores: Array, lengths: Array, scale: float) -> Array:
    """The attention pattern of raw scores (q · k, not yet scaled), (B, H, T, S) float32, computed in their place.

    `ops.softmax` of the scaled scores, with what `ops.attention_scores` hides left at 0.
    """
    _softmax_causal(scores, lengths, scale)
    return scores

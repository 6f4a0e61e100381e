"""Kernels that treat positions independently: layer norm, softmax, GELU."""

from __future__ import annotations

import math

import numpy as np
from numba import prange, types, void

from ...model import ops
from ...system.memory import empty
from .compiled import compiled
from .dot_products import dot
from .exponential import exp_and_sum, gelu_row, largest
from .kernel_types import PARALLEL, PARALLEL_NOGIL, SERIAL, matrix, out2, vector
from .panel_passes import ROWS_PER_TASK
from .threads import over_rows

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


@compiled(void(matrix, vector, vector, types.float32, out2), **PARALLEL_NOGIL)
def layer_norm_on_threads(x: Array, weight: Array, bias: Array, epsilon: float, out: Array) -> None:
    """Run `layer_norm_rows` on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(x) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        some = slice(part * ROWS_PER_TASK, min(len(x), part * ROWS_PER_TASK + ROWS_PER_TASK))
        layer_norm_rows(x[some], weight, bias, epsilon, out[some])


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Compute `ops.layer_norm` in one pass over each position."""
    if x.dtype != np.float32:
        return ops.layer_norm(x, weight, bias, epsilon)
    out, D = empty(x.shape, np.float32), x.shape[-1]
    source, target = np.ascontiguousarray(x).reshape(-1, D), out.reshape(-1, D)
    over_rows(layer_norm_rows, layer_norm_on_threads, source, weight, bias, epsilon, target)
    return out


@compiled(void(matrix, out2), **SERIAL)
def gelu_rows(x: Array, out: Array) -> None:
    """Apply GPT-2's GELU to every row."""
    for row in range(x.shape[0]):
        gelu_row(x, row, out)


@compiled(void(matrix, out2), **PARALLEL_NOGIL)
def gelu_on_threads(x: Array, out: Array) -> None:
    """Run `gelu_rows` on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(x) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        some = slice(part * ROWS_PER_TASK, min(len(x), part * ROWS_PER_TASK + ROWS_PER_TASK))
        gelu_rows(x[some], out[some])


@compiled(void(out2, matrix), **PARALLEL)
def add_on_threads(x: Array, more: Array) -> None:
    """Compute x += more on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(x) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        for r in range(part * ROWS_PER_TASK, min(len(x), part * ROWS_PER_TASK + ROWS_PER_TASK)):
            for d in range(x.shape[1]):
                x[r, d] += more[r, d]


def gelu_new(x: Array) -> Array:
    """Compute `ops.gelu_new`."""
    if x.dtype != np.float32:
        return ops.gelu_new(x)
    out, F = empty(x.shape, np.float32), x.shape[-1]
    source, target = np.ascontiguousarray(x).reshape(-1, F), out.reshape(-1, F)
    over_rows(gelu_rows, gelu_on_threads, source, target)
    return out


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """Compute `ops.activate`: compiled for GPT-2's own GELU, by `ops` for the others."""
    return gelu_new(x) if name in ops.GELU_NEW and x.dtype == np.float32 else ops.activate(x, name, parameters)


@compiled(void(matrix, out2), **SERIAL)
def softmax_rows(scores: Array, out: Array) -> None:
    """Compute `ops.softmax` a row at a time; masked scores, −∞, become exactly 0."""
    S = scores.shape[1]
    for row in range(scores.shape[0]):
        share = np.float32(1) / exp_and_sum(scores, row, S, largest(scores, row, S), out, row)
        for s in range(S):
            out[row, s] = out[row, s] * share if scores[row, s] > np.float32(-np.inf) else np.float32(0)


@compiled(void(matrix, out2), **PARALLEL_NOGIL)
def softmax_on_threads(scores: Array, out: Array) -> None:
    """Run `softmax_rows` on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(scores) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        some = slice(part * ROWS_PER_TASK, min(len(scores), part * ROWS_PER_TASK + ROWS_PER_TASK))
        softmax_rows(scores[some], out[some])


def softmax(scores: Array) -> Array:
    """Compute `ops.softmax` in one pass over each query."""
    if scores.dtype != np.float32:
        return ops.softmax(scores)
    out, S = empty(scores.shape, np.float32), scores.shape[-1]
    source, target = np.ascontiguousarray(scores).reshape(-1, S), out.reshape(-1, S)
    over_rows(softmax_rows, softmax_on_threads, source, target)
    return out

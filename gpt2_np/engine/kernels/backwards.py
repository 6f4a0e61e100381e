"""Kernels of derivatives, and of what gradient runs do between products, in one pass where NumPy takes several.

Those of layer norm, GPT-2's own GELU, the softmax and the cross-entropy treat positions independently; `column_sums`
adds them up.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .compiled import compiled
from .dot_products import dot
from .exponential import exp, exp_and_sum_all, largest
from .kernel_types import PARALLEL_NOGIL, SERIAL, lengths1, matrix, out1, out2, vector
from .panel_passes import ROWS_PER_TASK

Array = np.ndarray
COLUMNS_PER_TASK = 64  # columns that are summed at a time
SUMMED = 16  # positions per partial sum in float32; the partial sums are added in float64
doubles1 = types.Array(types.float64, 1, "C")


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


@compiled(void(matrix, matrix, out2), **PARALLEL_NOGIL)
def gelu_backward_on_threads(gradient: Array, x: Array, out: Array) -> None:
    """Run `gelu_backward_rows` on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(x) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        some = slice(part * ROWS_PER_TASK, min(len(x), part * ROWS_PER_TASK + ROWS_PER_TASK))
        gelu_backward_rows(gradient[some], x[some], out[some])


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


@compiled(void(matrix, out2), **SERIAL)
def centred_rows(x: Array, out: Array) -> None:
    """Compute `ops.centred` a row at a time."""
    D = x.shape[1]
    ones = np.ones((1, D), np.float32)
    for row in range(x.shape[0]):
        mean = dot(x, row, ones, 0, 0, D) / np.float32(D)
        for d in range(D):
            out[row, d] = x[row, d] - mean


@compiled(void(matrix, types.float32, out2), **SERIAL)
def scale_rows(centred: Array, epsilon: float, out: Array) -> None:
    """Compute `ops.layer_norm_scale` a row at a time."""
    D = centred.shape[1]
    for row in range(centred.shape[0]):
        variance = dot(centred, row, centred, row, 0, D) / np.float32(D)
        out[row, 0] = np.float32(math.sqrt(variance + epsilon))


@compiled(void(matrix, vector, vector, out2), **SERIAL)
def scaled_and_shifted_rows(normalized: Array, weight: Array, bias: Array, out: Array) -> None:
    """Compute `ops.scaled_and_shifted` a row at a time."""
    for row in range(normalized.shape[0]):
        for d in range(normalized.shape[1]):
            out[row, d] = normalized[row, d] * weight[d] + bias[d]


@register_jitable
def scale_and_hide(scores: Array, scale: float) -> None:
    """Compute `ops.scale_and_hide` for one head without a past, (T, T)."""
    T = len(scores)
    for t in range(T):
        row = scores[t]
        for s in range(t + 1):
            row[s] *= scale
        for s in range(t + 1, T):
            row[s] = np.float32(-np.inf)


@register_jitable
def softmax_backward(gradient: Array, p: Array) -> None:
    """Compute `derivatives.softmax` of one head's causal pattern in place, (T, T); what is not seen gets 0."""
    T = gradient.shape[0]
    for t in range(T):
        along = dot(gradient, t, p, t, 0, t + 1)
        mine, weights = gradient[t], p[t]
        for s in range(t + 1):
            mine[s] = (mine[s] - along) * weights[s]
        for s in range(t + 1, T):
            mine[s] = np.float32(0)


@compiled(void(matrix, lengths1, vector, out2, doubles1), **SERIAL)
def cross_entropy_rows(logits: Array, labels: Array, shares: Array, out: Array, losses: Array) -> None:
    """Compute `derivatives.cross_entropy`, whose result is written into ``losses``."""
    V = logits.shape[1]
    for row in range(logits.shape[0]):
        best, label_logit = largest(logits, row, V), logits[row, labels[row]]
        total = exp_and_sum_all(logits, row, best, out, row)
        losses[row] = math.log(total) - (label_logit - best)
        factor, p = np.float32(shares[row] / total), out[row]
        for v in range(V):
            p[v] *= factor
        p[labels[row]] -= shares[row]


@compiled(void(matrix, lengths1, vector, out2, doubles1), **PARALLEL_NOGIL)
def cross_entropy_on_threads(logits: Array, labels: Array, shares: Array, out: Array, losses: Array) -> None:
    """Run `cross_entropy_rows` on ROWS_PER_TASK rows at a time, on all threads."""
    for part in prange((len(logits) + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        some = slice(part * ROWS_PER_TASK, min(len(logits), part * ROWS_PER_TASK + ROWS_PER_TASK))
        cross_entropy_rows(logits[some], labels[some], shares[some], out[some], losses[some])


@register_jitable
def sums_of_columns(x: Array, factor: Array, multiplied: bool, first: int, last: int, out: Array) -> None:
    """Write the sums over rows of some columns of x, or of x · factor, into ``out[first:last]``."""
    total, some = np.zeros(last - first, np.float64), np.empty(last - first, np.float32)
    for start in range(0, len(x), SUMMED):
        some[:] = 0
        for r in range(start, min(len(x), start + SUMMED)):
            row, other = x[r, first:last], factor[r if multiplied else 0, first:last]
            if multiplied:
                for c in range(len(some)):
                    some[c] += row[c] * other[c]
            else:
                for c in range(len(some)):
                    some[c] += row[c]
        for c in range(len(some)):
            total[c] += some[c]
    for c in range(len(total)):
        out[first + c] = np.float32(total[c])


@compiled(void(matrix, matrix, types.boolean, out1), **SERIAL)
def column_sums(x: Array, factor: Array, multiplied: bool, out: Array) -> None:
    """Write the sums over rows of x, or of x · factor: (R, C) → (C,)."""
    sums_of_columns(x, factor, multiplied, 0, x.shape[1], out)


@compiled(void(matrix, matrix, types.boolean, out1), **PARALLEL_NOGIL)
def column_sums_on_threads(x: Array, factor: Array, multiplied: bool, out: Array) -> None:
    """Run `column_sums` on COLUMNS_PER_TASK columns at a time, on all threads."""
    C = x.shape[1]
    for part in prange((C + COLUMNS_PER_TASK - 1) // COLUMNS_PER_TASK):
        first = part * COLUMNS_PER_TASK
        sums_of_columns(x, factor, multiplied, first, min(C, first + COLUMNS_PER_TASK), out)


@compiled(void(matrix, lengths1, out2), **SERIAL)
def look_up_rows(gradient: Array, ids: Array, table: Array) -> None:
    """Compute `derivatives.look_up` in float32, position after position."""
    for r in range(len(ids)):
        row, more = table[ids[r]], gradient[r]
        for d in range(len(row)):
            row[d] += more[d]

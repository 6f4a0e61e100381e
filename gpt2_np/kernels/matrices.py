"""Matrices times few vectors: read the weights once, at the speed of memory.

Decoding reads every weight for each token, so all that matters is that memory streams. The (inputs, outputs) matrices
of the checkpoint are walked in blocks of whole rows, each block adding into sums of its own; the blocks' sums are then
added in a fixed order. Their number doesn't depend on the number of threads, nor a row's sums on the other rows: any
number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange, void

from .arithmetic import PARALLEL, matrix, out2, out3, vector
from .reduced import product
from .threads import in_threads, slices

Array = np.ndarray
FEW = 48  # from about so many rows on, BLAS is faster than reading the weights once
BLOCKS = 8


@numba.njit(void(matrix, matrix, vector, out3, out2), **PARALLEL)
def _linear(x: Array, weight: Array, bias: Array, sums: Array, out: Array) -> None:
    B, D = x.shape
    F = weight.shape[1]
    size = ((D + BLOCKS - 1) // BLOCKS + 7) // 8 * 8
    for block in prange(BLOCKS):
        start, end = min(D, block * size), min(D, block * size + size)
        sums[block, :, :] = np.float32(0)
        whole = start + (end - start) // 8 * 8
        for i in range(start, whole, 8):
            for b in range(B):
                x0, x1, x2, x3 = x[b, i], x[b, i + 1], x[b, i + 2], x[b, i + 3]
                x4, x5, x6, x7 = x[b, i + 4], x[b, i + 5], x[b, i + 6], x[b, i + 7]
                for f in range(F):
                    sums[block, b, f] += (
                        x0 * weight[i, f] + x1 * weight[i + 1, f] + x2 * weight[i + 2, f] + x3 * weight[i + 3, f]
                        + x4 * weight[i + 4, f] + x5 * weight[i + 5, f] + x6 * weight[i + 6, f] + x7 * weight[i + 7, f]
                    )  # fmt: skip
        for i in range(whole, end):
            for b in range(B):
                for f in range(F):
                    sums[block, b, f] += x[b, i] * weight[i, f]
    for b in range(B):
        for f in range(F):
            total = bias[f]
            for block in range(BLOCKS):
                total += sums[block, b, f]
            out[b, f] = total


def streams(x: Array, weight: Array) -> bool:
    """Whether the kernels can read this matrix: float32, row behind row."""
    return bool(x.dtype == weight.dtype == np.float32 and weight.flags.c_contiguous)


def linear(x: Array, weight: Any, bias: Array) -> Array:
    """As `ops.linear`: streamed for few positions, BLAS for many; reduced-precision weights bring their own."""
    if not isinstance(weight, np.ndarray):
        return _reduced(x, weight) + bias
    rows = x.size // x.shape[-1]
    if rows > FEW or not streams(x, weight):
        return _blas_linear(x, weight, bias)
    flat = np.ascontiguousarray(x).reshape(rows, -1)
    out = np.empty((rows, weight.shape[1]), np.float32)
    _linear(flat, weight, bias, np.empty((BLOCKS, *out.shape), np.float32), out)
    return out.reshape(*x.shape[:-1], -1)


def _blas_linear(x: Array, weight: Array, bias: Array) -> Array:
    flat = x.reshape(-1, x.shape[-1])
    out = np.empty((len(flat), weight.shape[1]), x.dtype)

    def part(rows: slice) -> None:
        np.matmul(flat[rows], weight, out=out[rows])
        out[rows] += bias

    in_threads(part, slices(len(flat)))
    return out.reshape(*x.shape[:-1], -1)


@numba.njit(void(matrix, matrix, out2), **PARALLEL)
def _unembed(x: Array, lm_head: Array, out: Array) -> None:
    B, D = x.shape
    V = lm_head.shape[0]
    size = (V + 255) // 256 * 4
    for block in prange((V + size - 1) // size):
        start, end = block * size, min(V, block * size + size)
        whole = start + (end - start) // 2 * 2
        for v in range(start, whole, 2):
            for b in range(B):
                s0 = s1 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * lm_head[v, d]
                    s1 += x[b, d] * lm_head[v + 1, d]
                out[b, v], out[b, v + 1] = s0, s1
        for v in range(whole, end):
            for b in range(B):
                s0 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * lm_head[v, d]
                out[b, v] = s0


def unembed(x: Array, lm_head: Any) -> Array:
    """As `ops.unembed`: each row of the vocabulary read once, two at a time, for few positions; BLAS for many."""
    if not isinstance(lm_head, np.ndarray):
        return _reduced(x, lm_head)
    rows = x.size // x.shape[-1]
    if rows > FEW or not streams(x, lm_head):
        return _blas_unembed(x, lm_head)
    out = np.empty((rows, lm_head.shape[0]), np.float32)
    _unembed(np.ascontiguousarray(x).reshape(rows, -1), lm_head, out)
    return out.reshape(*x.shape[:-1], -1)


def _blas_unembed(x: Array, lm_head: Array) -> Array:
    flat = x.reshape(-1, x.shape[-1])
    out = np.empty((len(flat), len(lm_head)), x.dtype)
    # Split over the vocabulary: each thread reads its own part of the largest matrix.
    in_threads(lambda part: np.matmul(flat, lm_head[part].T, out=out[:, part]), slices(len(lm_head)))
    return out.reshape(*x.shape[:-1], -1)


def _reduced(x: Array, weight: Any) -> Array:
    flat = np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])
    if len(flat) <= FEW:
        out = product(flat, weight.codes, weight.scales)
    else:
        out = np.empty((len(flat), len(weight.codes)), np.float32)
        # A piece of the matrix at a time, so that the widened copy stays small.
        pieces = [slice(start, start + 512) for start in range(0, len(weight.codes), 512)]
        in_threads(lambda part: np.matmul(flat, weight.dequantize(part).T, out=out[:, part]), pieces)
    return out.reshape(*x.shape[:-1], -1)

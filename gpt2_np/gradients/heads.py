"""Attention's matrix products, head by head on threads, each on one thread of BLAS; `products` explains why.

The scores of one head fit in a core's cache, and stay there from one product to the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.threaded import CACHED, threads
from ..system.memory import empty
from ..system.threads import evenly, on_threads, one_blas_thread
from . import derivatives

Array = np.ndarray
BLOCK = 128  # queries, or keys, of one head at a time


def each_head(work: Callable[[int, int], object], B: int, H: int, size: int) -> None:
    """Call ``work(b, h)`` for every head of every row, on threads if the heads read many numbers in total."""

    def group(b: int, heads: slice) -> None:
        for h in range(heads.start, heads.stop):
            work(b, h)

    each_group(group, B, H, size)


def each_group(work: Callable[[int, slice], object], B: int, H: int, size: int) -> None:
    """Call ``work(b, heads)`` for groups of a row's heads, all of them together; on threads as `each_head`."""

    def some(tasks: slice) -> None:
        for b in range(tasks.start // H, -(-tasks.stop // H)):
            work(b, slice(max(0, tasks.start - b * H), min(H, tasks.stop - b * H)))

    workers = threads()
    with one_blas_thread():
        if size <= CACHED or workers == 1:
            some(slice(0, B * H))
        else:
            on_threads(some, evenly(B * H, min(B * H, 4 * workers)), workers)


def product(weights: Array, vectors: Array) -> Array:
    """Multiply each head's weights by its vectors: (B, H, T, S), (B, S, H, K) → (B, T, H, K)."""
    B, H, T, _ = weights.shape
    out = empty((B, T, H, vectors.shape[-1]), vectors.dtype)

    def group(b: int, heads: slice) -> None:
        np.matmul(weights[b, heads], vectors[b, :, heads].swapaxes(0, 1), out=out[b, :, heads].swapaxes(0, 1))

    each_group(group, B, H, weights.size)
    return out


def scores(q: Array, k: Array, finish: Callable[[Array, int], object] | None = None) -> Array:
    """Multiply each head's queries by its keys: (B, T, H, K), (B, S, H, K) → (B, H, T, S).

    `finish` is called with each head's scores, (1, 1, T, S), and its row.
    """
    B, T, H, _ = q.shape
    out = empty((B, H, T, k.shape[1]), q.dtype)

    def group(b: int, heads: slice) -> None:
        np.matmul(q[b, :, heads].swapaxes(0, 1), k[b, :, heads].transpose(1, 2, 0), out=out[b, heads])
        if finish is not None:
            for h in range(heads.start, heads.stop):
                finish(out[b : b + 1, h : h + 1], b)

    each_group(group, B, H, out.size)
    return out


# ---- backward: no query sees a later key, so about half of each product is zeros and is skipped ---------------------
# The bits are the same whether this runs at once or step by step: sums are divided into the same pieces.


def attention(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Compute `derivatives.attention` for a causal pattern."""
    B, T, H, _ = q.shape
    of_q, of_k, of_v = (empty(one.shape, one.dtype) for one in (q, k, v))

    def group(b: int, heads: slice) -> None:
        g, queries, keys, values, for_q, for_k, for_v = (
            one[b, :, heads].swapaxes(0, 1) for one in (gradient, q, k, v, of_q, of_k, of_v)
        )
        p = pattern[b, heads]
        of_scores = np.matmul(g, values.swapaxes(1, 2))
        for of_head, weights in zip(of_scores, p, strict=True):
            of_head[:] = derivatives.softmax(of_head, weights)
        np.matmul(of_scores, keys, out=for_q)
        np.matmul(of_scores.swapaxes(1, 2), queries, out=for_k)
        np.matmul(p.swapaxes(1, 2), g, out=for_v)
        for_q *= scale
        for_k *= scale

    def head(b: int, h: int) -> None:
        of_pattern = np.empty((T, T), q.dtype)
        _of_weights(gradient[b, :, h], v[b, :, h], of_pattern, later=False)
        of_scores = derivatives.softmax(of_pattern, pattern[b, h])
        _weighted(of_scores, k[b, :, h], of_q[b, :, h], causal=True)
        _gathered(of_scores, q[b, :, h], of_k[b, :, h], causal=True)
        _gathered(pattern[b, h], gradient[b, :, h], of_v[b, :, h], causal=True)
        of_q[b, :, h] *= scale
        of_k[b, :, h] *= scale

    if T <= BLOCK:  # nothing can be skipped, and calls for one head would cost more than its products
        each_group(group, B, H, pattern.size)
    else:
        each_head(head, B, H, pattern.size)
    return of_q, of_k, of_v


def of_weights(gradient: Array, vectors: Array) -> Array:
    """Return the gradient of the weights of `weighted`: two of (B, T, H, K) → (B, H, T, T)."""
    B, T, H, _ = gradient.shape
    out = empty((B, H, T, T), gradient.dtype)
    each_head(lambda b, h: _of_weights(gradient[b, :, h], vectors[b, :, h], out[b, h]), B, H, out.size)
    return out


def weighted(weights: Array, vectors: Array) -> Array:
    """Multiply each head's weights, mostly 0 for later keys, by its vectors: (B, H, T, T), (B, T, H, K)."""
    B, T, H, _ = vectors.shape
    if T <= BLOCK:
        return product(weights, vectors)
    out = empty(vectors.shape, vectors.dtype)
    each_head(lambda b, h: _weighted(weights[b, h], vectors[b, :, h], out[b, :, h]), B, H, weights.size)
    return out


def gathered(weights: Array, vectors: Array) -> Array:
    """Compute `weighted` with the weights transposed: what each key receives from the queries."""
    B, _, H, _ = vectors.shape
    out = empty(vectors.shape, vectors.dtype)
    each_head(lambda b, h: _gathered(weights[b, h], vectors[b, :, h], out[b, :, h]), B, H, weights.size)
    return out


def _of_weights(gradient: Array, vectors: Array, out: Array, later: bool = True) -> None:
    """Compute gradient · vectorsᵀ for some queries at a time; 0 for later keys unless they are wanted: (T, K) twice →
    (T, T).
    """
    for some in _blocks(len(out)):
        end = some.stop
        np.matmul(gradient[some], vectors[:end].T, out=out[some, :end])
        if later:
            np.matmul(gradient[some], vectors[end:].T, out=out[some, end:])
        else:
            out[some, end:] = 0


def _weighted(weights: Array, vectors: Array, out: Array, causal: bool = False) -> None:
    """Compute weights · vectors for some queries at a time: (T, T), (T, K) → (T, K)."""
    for some in _blocks(len(out)):
        end = some.stop
        np.matmul(weights[some, :end], vectors[:end], out=out[some])
        if not causal and weights[some, end:].any():
            out[some] += weights[some, end:] @ vectors[end:]


def _gathered(weights: Array, vectors: Array, out: Array, causal: bool = False) -> None:
    """Compute weightsᵀ · vectors for some keys at a time: (T, T), (T, K) → (T, K)."""
    for some in _blocks(len(out)):
        start = some.start
        np.matmul(weights[start:, some].T, vectors[start:], out=out[some])
        if not causal and weights[:start, some].any():
            out[some] += weights[:start, some].T @ vectors[:start]


def _blocks(T: int) -> list[slice]:
    return [slice(start, min(T, start + BLOCK)) for start in range(0, T, BLOCK)]

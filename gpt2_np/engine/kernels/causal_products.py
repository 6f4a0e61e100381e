"""Attention's matrix products in gradient runs, head by head, skipping what the causal mask hides.

The backward pass needs the pattern that the forward pass leaves, (B, H, T, T). A head's intermediate results stay in a
core's cache from one product to the next. Sums have the order of `float32_steps`, whatever the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .backwards import scale_and_hide, softmax_backward
from .compiled import compiled
from .float32_blocks import columns_of_block, narrow_pass_over, pack, pass_over, transpose_all
from .float32_steps import BLOCK, NARROW, ROWS_PER_PASS, WIDTH
from .kernel_types import PARALLEL_NOGIL, SERIAL, heads4, out4, out_heads4, threads_here, weights4
from .panel_passes import put_columns
from .simd import LANES, LINE_FLOATS, prefetch_element

Array = np.ndarray
number = types.int64


@register_jitable
def vectors_of(x: Array, b: int, h: int, out: Array) -> None:
    """Copy a head's vectors, ``x[b, :, h]``, to ``out``: (B, T, H, K) → (T, K)."""
    for t in range(out.shape[0]):
        for d in range(out.shape[1]):
            out[t, d] = x[b, t, h, d]


@register_jitable
def prefetch_rows(x: Array) -> None:
    """Prefetch all rows of a matrix, which is read or written soon: its rows may lie kilobytes apart."""
    for r in range(x.shape[0]):
        for c in range(0, x.shape[1], LINE_FLOATS):
            prefetch_element(x, r, c)


@register_jitable
def dot_products(x: Array, y: Array, panel: Array, corner: Array, out: Array) -> None:
    """Write the dot products of row t of x with the rows of y up to the t-th, and some later ones: (T, K) twice →
    (T, T).
    """
    T, no_bias = len(x), np.empty(0, np.float32)
    for s in range(0, T, WIDTH):
        if s + WIDTH <= T:
            columns_of_block(x[s:], y, False, no_bias, s, T, panel, out[s:], s)
        else:
            columns_of_block(x[s:], y, False, no_bias, s, T, panel, corner, 0)
            put_columns(corner, out[s:], s)


@register_jitable
def add_products(x: Array, y: Array, t: int, d: int, later: bool, panel: Array, out: Array) -> None:
    """Multiply rows of x by a block of y, from its t-th row and d-th column on: x's t-th column belongs to that row.

    What the mask hides is skipped: in row r of x the columns after the r-th are 0, or, if it is of `later` queries, the
    columns before it. For t = 0 the result is written to ``out``, from column d on; otherwise, and of `later` queries,
    it is added there.
    """
    (T, K), R = y.shape, len(x)
    terms, narrow = min(BLOCK, T - t), K - d <= NARROW
    pack(y, True, t, terms, d, min(WIDTH, K - d), panel[0])
    r = 0 if later else t
    while r < R:
        first, last = (max(0, r - t), terms) if later else (0, min(terms, r + ROWS_PER_PASS - t))
        if narrow:
            r += narrow_pass_over(x, r, t, panel, first, last, out, d)
        else:
            r += pass_over(x, r, t, panel, first, last, out, d)


@register_jitable
def weighted_sums(weights: Array, y: Array, panel: Array, out: Array) -> None:
    """Write Σ weights[t, s] · y[s] over s ≤ t: (T, T), (T, K) → (T, K or more)."""
    T, K = y.shape
    for d in range(0, K, WIDTH):
        for s in range(0, T, BLOCK):
            add_products(weights, y, s, d, False, panel, out)


@register_jitable
def gathered_sums(weights: Array, y: Array, panel: Array, across: Array, out: Array) -> None:
    """Write Σ weights[t, s] · y[t] over t ≥ s: (T, T), (T, K) → (T, K or more). ``across`` is (BLOCK, T or more)."""
    T, K = y.shape
    out[:] = 0
    for s in range(0, T, BLOCK):
        columns = min(BLOCK, T - s)
        transpose_all(weights, s, s, T - s, columns, across)
        for d in range(0, K, WIDTH):
            for t in range(0, T - s, BLOCK):
                add_products(across[:columns], y[s:], t, d, True, panel, out[s:])


@register_jitable
def put(x: Array, scale: float, out: Array, b: int, h: int) -> None:
    """Write scale · x, (T, K or more), to a head's vectors, ``out[b, :, h]``."""
    for t in range(out.shape[1]):
        for d in range(out.shape[3]):
            out[b, t, h, d] = x[t, d] * scale


@register_jitable
def memory(T: int, K: int) -> tuple[Array, Array, Array, Array, Array]:
    """Return a thread's working memory: vectors, sums, transposed weights, a panel, the last columns of a result."""
    wide = (K + WIDTH - 1) // WIDTH * WIDTH
    vectors, sums = np.empty((2, T, K), np.float32), np.empty((T, wide), np.float32)
    # Rows that lie a multiple of 4 KB apart would displace each other from the first-level cache.
    across = np.empty((min(T, BLOCK), T + LANES), np.float32)
    return vectors, sums, across, np.empty((1, BLOCK, WIDTH), np.float32), np.empty((WIDTH, WIDTH), np.float32)


@register_jitable(**SERIAL)
def scores_of_head(head: int, q: Array, k: Array, scale: float, out: Array) -> None:
    """Compute `causal_scores` for one head of one row; there are B · H of them."""
    _, T, H, K = q.shape
    b, h = head // H, head % H
    vectors, _, _, panel, corner = memory(T, K)
    vectors_of(q, b, h, vectors[0])
    vectors_of(k, b, h, vectors[1])
    dot_products(vectors[0], vectors[1], panel, corner, out[b, h])
    scale_and_hide(out[b, h], scale)


@compiled(void(heads4, heads4, types.float32, out4), **PARALLEL_NOGIL)
def causal_scores(q: Array, k: Array, scale: float, out: Array) -> None:
    """Write each query's scores for the keys up to its own, −∞ for later ones: (B, T, H, K) twice → (B, H, T, T)."""
    heads = q.shape[0] * q.shape[2]
    if threads_here() == 1:
        for head in range(heads):
            scores_of_head(head, q, k, scale, out)
    else:
        for head in prange(heads):
            scores_of_head(np.int64(head), q, k, scale, out)


@register_jitable(**SERIAL)
def mean_of_head(head: int, pattern: Array, v: Array, out: Array) -> None:
    """Compute `causal_means` for one head of one row."""
    _, T, H, K = v.shape
    b, h = head // H, head % H
    vectors, sums, _, panel, _ = memory(T, K)
    vectors_of(v, b, h, vectors[0])
    weighted_sums(pattern[b, h], vectors[0], panel, sums)
    put(sums, np.float32(1), out, b, h)


@compiled(void(weights4, heads4, out_heads4), **PARALLEL_NOGIL)
def causal_means(pattern: Array, v: Array, out: Array) -> None:
    """Write each head's values, weighted by its causal pattern: (B, H, T, T), (B, T, H, K) → (B, T, H, K)."""
    heads = v.shape[0] * v.shape[2]
    if threads_here() == 1:
        for head in range(heads):
            mean_of_head(head, pattern, v, out)
    else:
        for head in prange(heads):
            mean_of_head(np.int64(head), pattern, v, out)


@register_jitable(**SERIAL)
def backward_of_head(
    head: int,
    gradient: Array,
    q: Array,
    k: Array,
    v: Array,
    pattern: Array,
    scale: float,
    of_q: Array,
    of_k: Array,
    of_v: Array,
) -> None:
    """Compute `causal_backward` for one head of one row."""
    _, T, H, K = q.shape
    b, h = head // H, head % H
    vectors, sums, across, panel, corner = memory(T, K)
    of_scores, weights, g, some = np.empty((T, T), np.float32), pattern[b, h], vectors[0], vectors[1]
    vectors_of(gradient, b, h, g)
    prefetch_rows(weights)
    prefetch_rows(of_v[b, :, h])
    prefetch_rows(v[b, :, h])
    gathered_sums(weights, g, panel, across, sums)
    prefetch_rows(k[b, :, h])
    prefetch_rows(of_q[b, :, h])
    put(sums, np.float32(1), of_v, b, h)
    vectors_of(v, b, h, some)
    dot_products(g, some, panel, corner, of_scores)
    softmax_backward(of_scores, weights)
    vectors_of(k, b, h, some)
    weighted_sums(of_scores, some, panel, sums)
    put(sums, scale, of_q, b, h)
    prefetch_rows(of_k[b, :, h])
    vectors_of(q, b, h, some)
    gathered_sums(of_scores, some, panel, across, sums)
    put(sums, scale, of_k, b, h)


@compiled(
    void(heads4, heads4, heads4, heads4, weights4, types.float32, out_heads4, out_heads4, out_heads4), **PARALLEL_NOGIL
)
def causal_backward(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float, of_q: Array, of_k: Array, of_v: Array
) -> None:
    """Compute `derivatives.attention` for a causal pattern: (B, T, H, K) four times, (B, H, T, T) → (B, T, H, K) three
    times.
    """
    heads = q.shape[0] * q.shape[2]
    if threads_here() == 1:
        for head in range(heads):
            backward_of_head(head, gradient, q, k, v, pattern, scale, of_q, of_k, of_v)
    else:
        for head in prange(heads):
            backward_of_head(np.int64(head), gradient, q, k, v, pattern, scale, of_q, of_k, of_v)

"""Causal attention: each query attends to the keys up to its own position.

Every query uses one order of summation, whether its position comes alone or with others, so the result is
batch-invariant: its scores are dot products, and its weighted mean of values adds position after position. Consecutive
queries share the keys and values that they load.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from ...model import ops
from ...system.memory import empty
from .compiled import compiled
from .dot_products import dot
from .exponential import exp_and_sum, largest
from .kernel_types import PARALLEL, SERIAL, lengths1, matrix, out3, out4, threads_here
from .query_lanes import KEYS, queries_in_lanes, scores_of_keys, softmax_terms
from .simd import LANES, LINE_FLOATS, prefetch_element
from .threads import launch
from .weighted_values import POSITIONS_AHEAD, SUMS, add_some_values, add_values, add_values_of_one

Array = np.ndarray
QUERIES = 32  # queries of a head that a thread takes at a time
POSITIONS_IN_CACHE = 128  # positions whose values stay in the first-level cache for several queries
FEWEST_IN_LANES = max(5, KEYS)  # queries from which on they attend side by side, even if some lanes are idle


@register_jitable
def cache_rows(qkv: Array, b: int, first_head: int, last_head: int, k: Array, v: Array, positions: Array) -> None:
    """Write some heads' keys and values of consecutive positions into row b of the cache."""
    H, K = k.shape[1], k.shape[3]
    D = H * K
    for r in range(len(positions)):
        for h in range(first_head, last_head):
            for d in range(K):
                k[b, h, positions[r], d] = qkv[r, D + h * K + d]
            for d in range(K):
                v[b, h, positions[r], d] = qkv[r, 2 * D + h * K + d]


@register_jitable(**SERIAL)
def append_block(task: int, blocks: int, qkv: Array, k: Array, v: Array, positions: Array) -> None:
    """Run `append_to_cache` for QUERIES positions of one row of the cache."""
    b, T = task // blocks, len(qkv) // k.shape[0]
    first = b * T + task % blocks * QUERIES
    last = min(b * T + T, first + QUERIES)
    cache_rows(qkv[first:last], b, 0, k.shape[1], k, v, positions[first:last])


@compiled(void(matrix, out4, out4, lengths1), **PARALLEL)
def append_to_cache(qkv: Array, k: Array, v: Array, positions: Array) -> None:
    """Write the keys and values of R positions into the cache, as `attend` does."""
    B = k.shape[0]
    blocks = (len(qkv) // B + QUERIES - 1) // QUERIES
    if threads_here() == 1:
        for task in range(B * blocks):
            append_block(task, blocks, qkv, k, v, positions)
    else:
        for task in prange(B * blocks):
            append_block(np.int64(task), blocks, qkv, k, v, positions)


@register_jitable
def attend_one(q: Array, keys: Array, values: Array, following: Array, scale: float, w: Array, out: Array) -> None:
    """Let one query, (1, K), attend to as many keys as ``w``, (1, S), has entries; write the result into ``out``, (1,
    K).

    It prefetches in the order of use: keys, values, the next head's keys.
    """
    S, K = w.shape[1], keys.shape[1]
    for s in range(S):
        ahead = s + POSITIONS_AHEAD
        for d in range(0, K, LINE_FLOATS):
            if ahead < S:
                prefetch_element(keys, ahead, d)
            else:
                prefetch_element(values, ahead - S, d)
        w[0, s] = dot(q, 0, keys, s, 0, K) * scale
    total = exp_and_sum(w, 0, S, largest(w, 0, S), w, 0)
    for d in range(K):
        out[0, d] = np.float32(0)
    add_values_of_one(w, values, S, following, out)
    for d in range(K):
        out[0, d] /= total


@register_jitable
def attend_in_lanes(
    q: Array, keys: Array, values: Array, S: int, scale: float, lanes: Array, w: Array, out: Array
) -> None:
    """Let up to LANES consecutive queries, (n, K), attend: the first sees S keys, each later one sees one more.

    The last one sees at least KEYS. ``lanes``, (K + LANES + 1, LANES), and ``w``, (S + n − 1 …, LANES), are working
    memory.
    """
    n, K = q.shape
    columns, sums, totals = lanes[:K], lanes[K : K + LANES], lanes[K + LANES]
    queries_in_lanes(q, columns)
    N = S + n - 1
    for s in range(0, N, KEYS):
        scores_of_keys(columns, keys, min(s, N - KEYS), scale, w)
    softmax_terms(w[:N], S, sums, totals)
    mean_values(w, values, S, totals, out)


@register_jitable
def mean_values(w: Array, values: Array, S: int, totals: Array, out: Array) -> None:
    """Write the means of ``values`` for consecutive queries in lanes, which `softmax_terms` has left in ``w``.

    Values are added some positions at a time, which stay in the first-level cache while all queries pass over them.
    """
    n, K = out.shape
    shared = n - n % SUMS
    out[:] = np.float32(0)
    # Only what a query sees is read for it: a later value may have overflowed, and 0 · ∞ isn't 0.
    for start in range(0, S + n, POSITIONS_IN_CACHE):
        for i in range(0, shared, SUMS):
            end = min(S + i, start + POSITIONS_IN_CACHE)
            if start < end:
                add_some_values(w, i, values, start, end, out)
    for query in range(n):
        first = S + query - query % SUMS if query < shared else 0
        add_values(w, query, values, first, S + query, out)
        for d in range(K):
            out[query, d] /= totals[query]


@register_jitable(**SERIAL)
def attend_rows(
    b: int, h: int, first: int, last: int, q: Array, k: Array, v: Array, positions: Array, scale: float, out: Array
) -> None:
    """Let the queries from row `first` to `last` of ``q``, which belong to row b of the cache, attend in head h."""
    H, K = k.shape[1], k.shape[3]
    keys, values, following = k[b, h], v[b, h], k[b, min(h + 1, H - 1)]
    N = positions[last - 1] + 1
    if last - first < FEWEST_IN_LANES:
        w = np.empty((1, N), np.float32)
        for r in range(first, last):
            mine = q[r : r + 1, h * K : h * K + K]
            attend_one(mine, keys, values, following, scale, w[:, : positions[r] + 1], out[r : r + 1, h])
        return
    columns, lanes = np.empty((N, LANES), np.float32), np.empty((K + LANES + 1, LANES), np.float32)
    for r in range(first, last, LANES):
        end = min(last, r + LANES)
        mine = q[r:end, h * K : h * K + K]
        attend_in_lanes(mine, keys, values, positions[r] + 1, scale, lanes, columns, out[r:end, h])


@register_jitable(**SERIAL)
def attend_head(
    head: int, qkv: Array, k: Array, v: Array, positions: Array, scale: float, new: bool, out: Array
) -> None:
    """Run `attend` for one head of one row of the cache; there are B · H of them."""
    B, H, K = k.shape[0], k.shape[1], k.shape[3]
    b, h, T = head // H, head % H, len(qkv) // B
    # The weights of earlier layers have displaced keys and values from the cache.
    for r in range(b * T, b * T + T if new else b * T):
        for d in range(0, K, LINE_FLOATS):
            prefetch_element(k[b, h], positions[r], d)
            prefetch_element(v[b, h], positions[r], d)
    for s in range(min(positions[b * T] + 1, POSITIONS_AHEAD)):
        for d in range(0, K, LINE_FLOATS):
            prefetch_element(k[b, h], s, d)
    if new:
        cache_rows(qkv[b * T : b * T + T], b, h, h + 1, k, v, positions[b * T : b * T + T])
    attend_rows(b, h, b * T, b * T + T, qkv, k, v, positions, scale, out)


@register_jitable(**SERIAL)
def attend_block(
    task: int, blocks: int, q: Array, k: Array, v: Array, positions: Array, scale: float, out: Array
) -> None:
    """Run `attend` for QUERIES queries of one head whose keys and values are in the cache.

    A head's tasks alternate between long and short ones: each thread gets a run of consecutive tasks, and so all
    threads get about the same work.
    """
    B, H = k.shape[0], k.shape[1]
    T = len(q) // B
    head, turn = task // blocks, task % blocks
    block = turn // 2 if turn % 2 == 0 else blocks - 1 - turn // 2
    b, h = head // H, head % H
    first = b * T + block * QUERIES
    attend_rows(b, h, first, min(b * T + T, first + QUERIES), q, k, v, positions, scale, out)


@compiled(void(matrix, out4, out4, lengths1, types.float32, types.boolean, out3), **PARALLEL)
def attend(qkv: Array, k: Array, v: Array, positions: Array, scale: float, new: bool, out: Array) -> None:
    """Let R positions attend, in H heads, to the keys up to their own: (R, 3 · D) → (R, H, K).

    ``qkv`` holds queries, keys and values side by side. With `new`, keys and values are first written into the cache,
    ``k`` and ``v`` (B, H, N, K); otherwise ``qkv`` may hold the queries alone, (R, D). Each row of the cache has R / B
    consecutive positions; position r stands at ``positions[r]``.
    """
    B, H = k.shape[0], k.shape[1]
    heads, T = B * H, len(qkv) // B
    if T <= QUERIES // 4 or heads * T <= 4 * QUERIES:
        if threads_here() == 1:
            for head in range(heads):
                attend_head(head, qkv, k, v, positions, scale, new, out)
        else:
            for head in prange(heads):
                attend_head(np.int64(head), qkv, k, v, positions, scale, new, out)
        return
    if new:
        append_to_cache(qkv, k, v, positions)
    blocks = (T + QUERIES - 1) // QUERIES
    if threads_here() == 1:
        for task in range(heads * blocks):
            attend_block(task, blocks, qkv, k, v, positions, scale, out)
    else:
        for task in prange(heads * blocks):
            attend_block(np.int64(task), blocks, qkv, k, v, positions, scale, out)


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `ops.attention`."""
    B, T, H, K = q.shape
    if q.dtype != np.float32:
        return ops.attention(q, k, v, lengths, scale)
    out = empty((B * T, H, K), np.float32)
    # A cache is contiguous, so nothing of it is copied here.
    k, v = (np.require(array, requirements=("C", "W")) for array in (k, v))
    positions = (lengths[:, None] + np.arange(T)).ravel()
    launch(attend, np.ascontiguousarray(q.reshape(B * T, -1)), k, v, positions, scale, False, out)
    return out.reshape(B, T, H, K)

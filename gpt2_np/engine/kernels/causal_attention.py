"""Causal attention: each query attends to the keys up to its own position.

Every query uses one order of summation, whether its position comes alone or with others, so the result is
batch-invariant: its scores are dot products, and its weighted mean of values adds position after position. Consecutive
queries share the keys and values that they load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...model import ops
from ...system.memory import empty
from .compiled import compiled
from .dot_products import BLOCK_COLUMNS, BLOCK_ROWS, FLOATS, INDEX, dot, dot_block
from .exponential import exp_and_sum, largest
from .kernel_types import PARALLEL, SERIAL, lengths1, matrix, out3, out4, threads_here
from .llvm import Builder, Context, Kinds, Signature, Value, Values
from .simd import (
    LANES,
    LINE_FLOATS,
    accumulate,
    address,
    broadcast,
    emits,
    index_after,
    load,
    multiply_add,
    prefetch,
    prefetch_element,
    store,
)
from .threads import launch

Array = np.ndarray
POSITIONS_AHEAD = 32  # how many positions ahead keys and values are prefetched
QUERIES = 32  # queries of a head that a thread takes at a time


def weighted_mean(w: Array, values: Array, S: int, following: Array, total: float, out: Array) -> None:
    """Write the mean of the first S rows of ``values``, weighted by ``w[0]``, into ``out[0]``.

    w is (1, N) and sums to `total`; values are (N, K), out is (1, K). Values are prefetched some rows ahead; after the
    last row come the rows of ``following``.
    """
    out[0] = w[0, :S] @ values[:S] / total


def weighted_means(w: Array, values: Array, S: int, totals: Array, out: Array) -> None:
    """Compute `weighted_mean` for BLOCK_ROWS consecutive queries: the i-th one sees the first S + i rows."""
    for i in range(BLOCK_ROWS):
        out[i] = w[i, : S + i] @ values[: S + i] / totals[i]


@emits(weighted_mean, lambda w, values, S, following, total, out: types.void)
def _weighted_mean(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    w, values, S, following, total, out = arguments
    of_w, of_values, _, of_following, _, of_out = signature.args

    def prefetch_ahead(s: Value, d: Value, vectors: int) -> None:
        ahead = index_after(builder, s, POSITIONS_AHEAD)
        beyond = builder.sub(ahead, S)
        place = builder.select(
            builder.icmp_signed("<", beyond, S.type(0)),
            address(context, builder, of_values, values, ahead, d),
            address(context, builder, of_following, following, beyond, d),
        )
        prefetch(builder, place, 4 * vectors * LANES)

    _emit_weighted_means(context, builder, (of_w, of_values, of_out), (w, values, out), S, [total], prefetch_ahead)
    return context.get_dummy_value()


@emits(weighted_means, lambda w, values, S, totals, out: types.void)
def _weighted_means(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    w, values, S, totals, out = arguments
    of_w, of_values, _, of_totals, of_out = signature.args
    each = [builder.load(address(context, builder, of_totals, totals, INDEX(row))) for row in range(BLOCK_ROWS)]
    _emit_weighted_means(context, builder, (of_w, of_values, of_out), (w, values, out), S, each, _no_prefetch)
    return context.get_dummy_value()


def _no_prefetch(s: Value, d: Value, vectors: int) -> None:
    """Prefetch nothing: the keys and values of several queries were just written, or are read repeatedly."""


def _emit_weighted_means(
    context: Context,
    builder: Builder,
    kinds: Kinds,
    arrays: Values,
    S: Value,
    totals: list[Value],
    prefetch_ahead: Callable[[Value, Value, int], None],
) -> None:
    """Emit the instructions of both functions, for some vectors of columns at a time and one query for each of
    ``totals``.

    ``prefetch_ahead(s, d, vectors)`` prefetches what a later position needs.
    """
    (of_w, of_values, of_out), (w, values, out), rows = kinds, arrays, len(totals)
    weights = [address(context, builder, of_w, w, INDEX(row), INDEX(0)) for row in range(rows)]

    def columns(d: Value, vectors: int) -> None:
        kind = FLOATS if vectors else ir.FloatType()
        count = max(vectors, 1)

        def add(s: Value, sums: list[Value], queries: list[int]) -> list[Value]:
            """One position's value, weighted for some of the queries, added to their sums."""
            prefetch_ahead(s, d, vectors)
            here = address(context, builder, of_values, values, s, d)
            value = [load(builder, here, kind, v * LANES) for v in range(count)]
            sums = list(sums)
            for k, query in enumerate(queries):
                weight = builder.load(builder.gep(weights[query], [s]))
                each = broadcast(builder, weight, FLOATS) if vectors else weight
                for v, one in enumerate(value):
                    sums[k * count + v] = multiply_add(builder, each, one, sums[k * count + v])
            return sums

        every = list(range(rows))
        zeros = [ir.Constant(kind, None if vectors else 0)] * (rows * count)
        sums = accumulate(builder, zeros, S.type(0), S, S.type(1), partial(add, queries=every))
        for query in every:
            mine = sums[query * count : query * count + count]
            end = builder.add(S, S.type(query))
            if query:
                mine = accumulate(builder, mine, S, end, S.type(1), partial(add, queries=[query]))
            total = broadcast(builder, totals[query], FLOATS) if vectors else totals[query]
            for v, one in enumerate(mine):
                place = address(context, builder, of_out, out, INDEX(query), d)
                store(builder, builder.fdiv(one, total), place, v * LANES)

    first, K = INDEX(0), builder.extract_value(context.make_array(of_out)(context, builder, out).shape, 1)
    for vectors in (4, 2, 1, 0):
        width = INDEX(vectors * LANES or 1)
        end = builder.sub(K, builder.srem(builder.sub(K, first), width))
        with cgutils.for_range_slice(builder, first, end, width, inc=True) as (d, _):
            columns(d, vectors)
        first = end


@compiled(void(types.int64, matrix, out4, out4, lengths1), **SERIAL)
def cache_head(head: int, qkv: Array, k: Array, v: Array, positions: Array) -> None:
    """Write one head's new keys and values into the cache: the first half of `attend`."""
    B, H, K = k.shape[0], k.shape[1], k.shape[3]
    T, D = len(qkv) // B, H * K
    b, h = head // H, head % H
    for r in range(b * T, b * T + T):
        for d in range(K):
            k[b, h, positions[r], d] = qkv[r, D + h * K + d]
            v[b, h, positions[r], d] = qkv[r, 2 * D + h * K + d]


@compiled(void(matrix, out4, out4, lengths1), **PARALLEL)
def append_to_cache(qkv: Array, k: Array, v: Array, positions: Array) -> None:
    """Write the keys and values of R positions into the cache, as `attend` does."""
    heads = k.shape[0] * k.shape[1]
    if threads_here() == 1:
        for head in range(heads):
            cache_head(head, qkv, k, v, positions)
    else:
        for head in prange(heads):
            cache_head(np.int64(head), qkv, k, v, positions)


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
    total = exp_and_sum(w, 0, S, largest(w, 0, S))
    weighted_mean(w, values, S, following, total, out)


@register_jitable
def attend_consecutive(q: Array, keys: Array, values: Array, S: int, scale: float, w: Array, out: Array) -> None:
    """Let BLOCK_ROWS consecutive queries, (BLOCK_ROWS, K), attend: the first sees S keys, each later one sees one
    more.
    """
    K = keys.shape[1]
    totals = np.empty(BLOCK_ROWS, np.float32)
    shared = S - S % BLOCK_COLUMNS
    for s in range(0, shared, BLOCK_COLUMNS):
        dot_block(q, 0, keys, s, 0, K, scale, w)
    for i in range(BLOCK_ROWS):
        for s in range(shared, S + i):
            w[i, s] = dot(q, i, keys, s, 0, K) * scale
        totals[i] = exp_and_sum(w, i, S + i, largest(w, i, S + i))
    weighted_means(w, values, S, totals, out)


@compiled(void(*(types.int64,) * 4, matrix, out4, out4, lengths1, types.float32, out3), **SERIAL)
def attend_rows(
    b: int, h: int, first: int, last: int, q: Array, k: Array, v: Array, positions: Array, scale: float, out: Array
) -> None:
    """Let the queries from row `first` to `last` of ``q``, which belong to row b of the cache, attend in head h."""
    H, K = k.shape[1], k.shape[3]
    keys, values, following = k[b, h], v[b, h], k[b, min(h + 1, H - 1)]
    w = np.empty((BLOCK_ROWS, positions[last - 1] + 1), np.float32)
    r = first
    while r < last:
        S = positions[r] + 1
        if last - r >= BLOCK_ROWS:
            mine = q[r : r + BLOCK_ROWS, h * K : h * K + K]
            attend_consecutive(mine, keys, values, S, scale, w, out[r : r + BLOCK_ROWS, h])
            r += BLOCK_ROWS
        else:
            mine = q[r : r + 1, h * K : h * K + K]
            attend_one(mine, keys, values, following, scale, w[:1, :S], out[r : r + 1, h])
            r += 1


@compiled(void(types.int64, matrix, out4, out4, lengths1, types.float32, types.boolean, out3), **SERIAL)
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
        cache_head(head, qkv, k, v, positions)
    attend_rows(b, h, b * T, b * T + T, qkv, k, v, positions, scale, out)


@compiled(void(types.int64, types.int64, matrix, out4, out4, lengths1, types.float32, out3), **SERIAL)
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

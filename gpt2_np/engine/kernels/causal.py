"""Causal attention: few positions by a kernel that streams the cache, many by BLAS in blocks of queries."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.core import cgutils
from numba.extending import register_jitable

from ...model import ops
from ...system.memory import empty
from .arithmetic import PARALLEL, exp, lengths1, matrix, out3, out4, threads_here
from .compiled import compiled
from .dots import FLOATS, INDEX, dot_near
from .llvm import Builder, Context, Signature, Value, Values
from .matrices import FEW
from .pointwise import softmax_causal
from .registers import LANES, LINE, address, ask, ask_for, emits, further, load, multiply_add, repeat, store, summing
from .threads import in_threads, launch

Array = np.ndarray
NEAR = 32  # how many positions ahead memory is asked for keys, and values
QUERIES = 64  # scores of so many queries at a time stay in the processor's cache


def weighted_mean(w: Array, values: Array, S: int, following: Array, out: Array) -> None:
    """The mean of the first S rows of ``values``, each weighing as much as ``w`` says, into ``out``: (N, K) → (K,).

    Memory is asked for values NEAR rows ahead, and behind the last one for the rows of ``following``.
    """
    out[:] = w[:S] @ values[:S] / w[:S].sum()


@emits(weighted_mean, lambda w, values, S, following, out: types.void)
def _weighted_mean(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    w, values, S, following, out = arguments
    of_w, of_values, _, of_following, of_out = signature.args
    number = ir.FloatType()

    def columns(d: Value, vectors: int) -> None:
        kind = FLOATS if vectors else number

        def add_row(s: Value, sums: list[Value]) -> list[Value]:
            weight = builder.load(address(context, builder, of_w, w, s))
            ahead = further(builder, s, NEAR)
            beyond = builder.sub(ahead, S)
            asked = builder.select(
                builder.icmp_signed("<", beyond, S.type(0)),
                address(context, builder, of_values, values, ahead, d),
                address(context, builder, of_following, following, beyond, d),
            )
            ask_for(builder, asked, vectors * LANES)
            here = address(context, builder, of_values, values, s, d)
            each = repeat(builder, weight, FLOATS) if vectors else weight
            rows = [load(builder, here, kind, v * LANES) for v in range(max(vectors, 1))]
            total, *sums = sums
            return [
                builder.fadd(total, weight),
                *(multiply_add(builder, each, row, one) for row, one in zip(rows, sums, strict=True)),
            ]

        zeros = [number(0), *[ir.Constant(kind, None if vectors else 0)] * max(vectors, 1)]
        total, *sums = summing(builder, zeros, S.type(0), S, S.type(1), add_row)
        whole = repeat(builder, total, FLOATS) if vectors else total
        for v, one in enumerate(sums):
            store(builder, builder.fdiv(one, whole), address(context, builder, of_out, out, d), v * LANES)

    first, K = INDEX(0), builder.extract_value(context.make_array(of_out)(context, builder, out).shape, 0)
    for vectors in (4, 2, 1, 0):
        width = INDEX(vectors * LANES or 1)
        end = builder.sub(K, builder.srem(builder.sub(K, first), width))
        with cgutils.for_range_slice(builder, first, end, width, inc=True) as (d, _):
            columns(d, vectors)
        first = end
    return context.get_dummy_value()


@register_jitable
def attend_head(
    task: int, qkv: Array, k: Array, v: Array, positions: Array, scale: float, weights: Array, out: Array
) -> None:
    """`attend` for one head of one row of the cache, B · H of which there are."""
    B, H, K = k.shape[0], k.shape[1], k.shape[3]
    T, D = len(qkv) // B, H * K
    b, h = task // H, task % H
    # The weights of the layers before have pushed all of it out of the processor's cache. What is asked for, in
    # the order of its use: keys, values, the next head's keys.
    keys, values, following, of_row = k[b, h], v[b, h], k[b, min(h + 1, H - 1)], range(b * T, b * T + T)
    if qkv.shape[1] > D:
        for r in of_row:
            for d in range(0, K, LINE):
                ask(keys, positions[r], d)
                ask(values, positions[r], d)
    for s in range(min(positions[b * T] + 1, NEAR)):
        for d in range(0, K, LINE):
            ask(keys, s, d)
    if qkv.shape[1] > D:
        for r in of_row:
            for d in range(K):
                keys[positions[r], d] = qkv[r, D + h * K + d]
                values[positions[r], d] = qkv[r, 2 * D + h * K + d]
    for r in of_row:
        q, w, S = qkv[r : r + 1, h * K : h * K + K], weights[r, h], positions[r] + 1
        best = np.float32(-np.inf)
        for s in range(S):
            ahead = s + NEAR
            for d in range(0, K, LINE):
                if ahead < S:
                    ask(keys, ahead, d)
                else:
                    ask(values, ahead - S, d)
            w[s] = dot_near(q, 0, keys, s, 0, K) * scale
            best = max(best, w[s])
        for s in range(S):
            w[s] = exp(w[s] - best)
        weighted_mean(w, values, S, following, out[r, h])


@compiled(void(matrix, out4, out4, lengths1, types.float32, out3, out3), **PARALLEL)
def attend(qkv: Array, k: Array, v: Array, positions: Array, scale: float, weights: Array, out: Array) -> None:
    """R single positions look back, in H heads, each at the keys up to its own: (R, 3 · D) → (R, H, K).

    ``qkv`` holds queries, keys and values side by side. The keys and values are written into the cache, ``k`` and ``v``
    (B, H, N, K), first; where they are there already, queries alone will do, (R, D). Each row of the cache has R / B of
    the positions, one behind the other: position r stands at ``positions[r]``. ``weights`` is room to work in,
    (R, H, the most keys that are seen …).
    """
    heads = k.shape[0] * k.shape[1]
    if threads_here() == 1:
        for head in range(heads):
            attend_head(head, qkv, k, v, positions, scale, weights, out)
    else:
        for head in prange(heads):
            attend_head(np.int64(head), qkv, k, v, positions, scale, weights, out)


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """As `ops.attention`."""
    B, T, H, K = q.shape
    if q.dtype != np.float32:
        return ops.attention(q, k, v, lengths, scale)
    if B * T <= FEW:
        out = np.empty((B * T, H, K), np.float32)
        # A cache lies in one piece, so nothing of it is copied here.
        k, v = (np.require(array, requirements=("C", "W")) for array in (k, v))
        positions = (lengths[:, None] + np.arange(T)).ravel()
        weights = np.empty((B * T, H, int(positions.max()) + 1), np.float32)
        launch(attend, np.ascontiguousarray(q.reshape(B * T, -1)), k, v, positions, scale, weights, out)
        return out.reshape(B, T, H, K)
    out = empty((B, T, H, K), np.float32)
    queries = q.transpose(0, 2, 1, 3)

    def some(piece: tuple[int, int]) -> None:
        start, b = piece
        end = min(T, start + QUERIES)
        S = int(lengths[b]) + end  # later keys are the future of all these queries
        scores = queries[b : b + 1, :, start:end] @ k[b : b + 1, :, :S].swapaxes(2, 3)
        pattern = softmax_causal(scores, lengths[b : b + 1] + start, scale)
        out[b : b + 1, start:end] = (pattern @ v[b : b + 1, :, :S]).transpose(0, 2, 1, 3)

    longest_first = range(T - 1 - (T - 1) % QUERIES, -1, -QUERIES)
    in_threads(some, [(start, b) for start in longest_first for b in range(B)])
    return out

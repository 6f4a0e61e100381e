"""Causal attention: few positions by a kernel that streams the cache, many by BLAS in blocks of queries."""

from __future__ import annotations

import numba
import numpy as np
from numba import prange, types, void

from .. import ops
from ..pages import empty
from .arithmetic import PARALLEL, exp, lengths1, matrix, out3, out4
from .matrices import FEW
from .pointwise import softmax_causal
from .registers import LINE, ask
from .threads import in_threads

Array = np.ndarray
NEAR = 32  # how many positions ahead memory is asked for keys, and values
QUERIES = 64  # scores of so many queries at a time stay in the processor's cache


@numba.njit(void(matrix, out4, out4, lengths1, types.float32, out3, out3), **PARALLEL)
def attend(qkv: Array, k: Array, v: Array, positions: Array, scale: float, weights: Array, out: Array) -> None:
    """R single positions look back, in H heads, each at the keys up to its own: (R, 3 · D) → (R, H, K).

    ``qkv`` holds queries, keys and values side by side. The keys and values are written into the cache, ``k`` and ``v``
    (B, H, N, K), first; where they are there already, queries alone will do, (R, D). Each row of the cache has R / B of
    the positions, one behind the other: position r stands at ``positions[r]``. ``weights`` is room to work in,
    (R, H, the most keys that are seen …).
    """
    B, H, K = k.shape[0], k.shape[1], k.shape[3]
    T, D = len(qkv) // B, H * K
    for task in prange(B * H):
        b, h = task // H, task % H
        keys, values, of_row = k[b, h], v[b, h], range(b * T, b * T + T)
        if qkv.shape[1] > D:
            for r in of_row:
                for d in range(0, K, LINE):
                    ask(keys, positions[r], d)
                    ask(values, positions[r], d)
        # The weights of the layers before have pushed them out of the processor's cache.
        for s in range(min(positions[b * T] + 1, NEAR)):
            for d in range(0, K, LINE):
                ask(keys, s, d)
        for s in range(min(positions[b * T] + 1, NEAR)):
            for d in range(0, K, LINE):
                ask(values, s, d)
        if qkv.shape[1] > D:
            for r in of_row:
                for d in range(K):
                    keys[positions[r], d] = qkv[r, D + h * K + d]
                    values[positions[r], d] = qkv[r, 2 * D + h * K + d]
        for r in of_row:
            q, w, S = qkv[r, h * K : h * K + K], weights[r, h], positions[r] + 1
            whole = S // 4 * 4
            for s in range(0, whole, 4):
                for further in range(s + NEAR, s + NEAR + 4):
                    for d in range(0, K, LINE):
                        ask(keys, further, d)
                w0 = w1 = w2 = w3 = np.float32(0)
                for d in range(K):
                    w0 += q[d] * keys[s, d]
                    w1 += q[d] * keys[s + 1, d]
                    w2 += q[d] * keys[s + 2, d]
                    w3 += q[d] * keys[s + 3, d]
                w[s], w[s + 1], w[s + 2], w[s + 3] = w0 * scale, w1 * scale, w2 * scale, w3 * scale
            for s in range(whole, S):
                w0 = np.float32(0)
                for d in range(K):
                    w0 += q[d] * keys[s, d]
                w[s] = w0 * scale
            best = np.float32(-np.inf)
            for s in range(S):
                best = max(best, w[s])
            total = np.float32(0)
            for s in range(S):
                w[s] = exp(w[s] - best)
                total += w[s]
            for d in range(K):
                out[r, h, d] = np.float32(0)
            for s in range(0, whole, 4):
                for further in range(s + NEAR, s + NEAR + 4):
                    for d in range(0, K, LINE):
                        ask(values, further, d)
                w0, w1, w2, w3 = w[s], w[s + 1], w[s + 2], w[s + 3]
                for d in range(K):
                    out[r, h, d] += (w0 * values[s, d] + w1 * values[s + 1, d]
                                     + w2 * values[s + 2, d] + w3 * values[s + 3, d])  # fmt: skip
            for s in range(whole, S):
                for d in range(K):
                    out[r, h, d] += w[s] * values[s, d]
            for d in range(K):
                out[r, h, d] /= total


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
        attend(np.ascontiguousarray(q.reshape(B * T, -1)), k, v, positions, scale, weights, out)
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

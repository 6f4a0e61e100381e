"""`ops` on every core: what observes a run computes with these, and so does the "numpy" backend.

Same names, same signatures, nothing compiled: what is too large for a core's cache is worked out in pieces, on threads.
A piece is some positions, heads or outputs, which `ops` treats apart anyway: softmax, GELU and layer norm give the very
bits of `ops`; a product's sums are BLAS's, which may add in another order where a piece has another shape. What passes
from one line of `ops` to the next stays in the cache, and BLAS, with one thread inside each of ours, has none that
spins while others work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from . import ops

__all__ = ["activate", "attention", "attention_scores", "layer_norm", "layer_norm_scale", "linear", "mix_values",
           "softmax", "split_heads", "unembed"]  # fmt: skip

Array = np.ndarray
CACHED = 1 << 17  # numbers whose working copies stay in a core's cache: half a megabyte in float32
PRODUCT = 1 << 20  # numbers that a product must give at once for BLAS to be at its best


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """As `ops.layer_norm`, some positions at a time."""
    return _by_rows(lambda some: ops.layer_norm(some, weight, bias, epsilon), x)


def layer_norm_scale(centred: Array, epsilon: float) -> Array:
    """`ops.layer_norm_scale`, which is not worth dividing."""
    return ops.layer_norm_scale(centred, epsilon)


def split_heads(x: Array, heads: int) -> tuple[Array, Array, Array]:
    """`ops.split_heads`, which only looks at its array in another way."""
    return ops.split_heads(x, heads)


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """As `ops.activate`, some positions at a time."""
    return _by_rows(lambda some: ops.activate(some, name, parameters), x)


def softmax(scores: Array) -> Array:
    """As `ops.softmax`, some queries at a time."""
    return _by_rows(ops.softmax, scores)


def linear(x: Array, weight: Any, bias: Array) -> Array:
    """As `ops.linear`, some outputs at a time, written to where they stay."""
    if not isinstance(weight, np.ndarray) or x[..., 0].size * len(bias) <= CACHED:
        return ops.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    out = np.empty((len(flat), len(bias)), x.dtype)

    def fill(some: slice) -> None:
        np.matmul(flat, weight[:, some], out=out[:, some])
        out[:, some] += bias[some]

    _in_pieces(fill, len(bias), out.size, PRODUCT)
    return out.reshape(*x.shape[:-1], -1)


def unembed(x: Array, lm_head: Any) -> Array:
    """As `ops.unembed`, some of the vocabulary at a time, written to where they stay."""
    if not isinstance(lm_head, np.ndarray) or x[..., 0].size * len(lm_head) <= CACHED:
        return ops.unembed(x, lm_head)
    flat = x.reshape(-1, x.shape[-1])
    out = np.empty((len(flat), len(lm_head)), x.dtype)

    def fill(some: slice) -> None:
        np.matmul(flat, lm_head[some].T, out=out[:, some])

    _in_pieces(fill, len(lm_head), out.size, PRODUCT)
    return out.reshape(*x.shape[:-1], -1)


def attention_scores(q: Array, k: Array, lengths: Array, scale: float) -> Array:
    """As `ops.attention_scores`, some heads at a time."""
    (B, T, H, _), S = q.shape, k.shape[2]
    out = np.empty((B, H, T, S), q.dtype)

    def fill(some: slice) -> None:
        out[:, some] = ops.attention_scores(q[:, :, some], k[:, some], lengths, scale)

    _in_pieces(fill, H, out.size)
    return out


def mix_values(pattern: Array, v: Array) -> Array:
    """As `ops.mix_values`, some heads at a time."""
    (B, H, T, _), K = pattern.shape, v.shape[3]
    out = np.empty((B, T, H, K), v.dtype)

    def fill(some: slice) -> None:
        out[:, :, some] = ops.mix_values(pattern[:, some], v[:, some])

    _in_pieces(fill, H, pattern.size)
    return out


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """As `ops.attention`, some heads at a time: the bits of the three steps above, and only some heads' patterns."""
    (B, T, H, _), S = q.shape, int(lengths.max()) + q.shape[1]
    out = np.empty(q.shape, q.dtype)

    def fill(some: slice) -> None:
        out[:, :, some] = ops.attention(q[:, :, some], k[:, some], v[:, some], lengths, scale)

    _in_pieces(fill, H, B * H * T * S)
    return out


def _by_rows(function: Callable[[Array], Array], x: Array) -> Array:
    """``function(x)``, for a function that treats every vector along the last axis apart."""
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty(rows.shape, x.dtype)

    def fill(some: slice) -> None:
        out[some] = function(rows[some])

    _in_pieces(fill, len(rows), x.size)
    return out.reshape(x.shape)


def _in_pieces(fill: Callable[[slice], None], count: int, numbers: int, size: int = CACHED) -> None:
    """``fill(slice)`` for all of `count`, in pieces that each work out about `size` of the `numbers` in all."""
    if numbers <= CACHED:
        fill(slice(count))
        return
    # One at a time: runs that overlap would each put back the other's limit on BLAS, and need the same cores anyway.
    with _turn:
        threads = _threads()
        pieces = min(count, threads * max(1, round(numbers / (threads * size))))
        left = deque(slice(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces))

        def work() -> None:
            while (some := _next(left)) is not None:
                fill(some)

        with _blas().limit(limits=1):
            others = [_pool(threads, os.getpid()).submit(work) for _ in range(min(threads, pieces) - 1)]
            work()
            for other in others:
                other.result()


_turn = Lock()


def _next(left: deque[slice]) -> slice | None:
    with suppress(IndexError):
        return left.popleft()
    return None


def _threads() -> int:
    """As many as BLAS may use, so that its settings (``OPENBLAS_NUM_THREADS``, threadpoolctl's) hold here too."""
    return max((library.num_threads for library in _blas().lib_controllers), default=os.cpu_count() or 1)


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gpt2_np")

"""`ops` on every core: what observes a run computes with these, and so does the "numpy" backend.

Same names, same signatures, the same bits, nothing compiled. BLAS has threads of its own for the products; what treats
positions apart, softmax, GELU and layer norm, is worked out by `ops` some positions at a time, on threads, so that what
passes from one line of it to the next stays in a core's cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from . import ops

Array = np.ndarray
CACHED = 1 << 17  # numbers whose working copies stay in a core's cache: half a megabyte in float32


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """As `ops.layer_norm`, some positions at a time."""
    return _by_rows(lambda some: ops.layer_norm(some, weight, bias, epsilon), x)


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """As `ops.activate`, some positions at a time."""
    return _by_rows(lambda some: ops.activate(some, name, parameters), x)


def softmax(scores: Array) -> Array:
    """As `ops.softmax`, some queries at a time."""
    return _by_rows(ops.softmax, scores)


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """As `ops.attention`, with the softmax of this module."""
    S = int(lengths.max()) + q.shape[1]
    return ops.mix_values(softmax(ops.attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])


def __getattr__(name: str) -> Any:
    """What isn't divided is `ops`' own."""
    return getattr(ops, name)


def _by_rows(function: Callable[[Array], Array], x: Array) -> Array:
    """``function(x)``, for a function that treats every vector along the last axis apart."""
    if x.size <= CACHED:
        return function(x)
    rows = x.reshape(-1, x.shape[-1])
    out, threads = np.empty(rows.shape, x.dtype), _threads()
    pieces = min(len(rows), threads * max(1, round(x.size / (threads * CACHED))))
    bounds = [len(rows) * piece // pieces for piece in range(pieces + 1)]

    def fill(some: slice) -> None:
        out[some] = function(rows[some])

    for _ in _pool(threads, os.getpid()).map(fill, map(slice, bounds, bounds[1:])):
        pass
    return out.reshape(x.shape)


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

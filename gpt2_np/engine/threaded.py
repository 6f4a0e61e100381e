"""`ops` on every core: runs with taps use these functions, and so does the "numpy" backend.

Names, signatures and bits are those of `ops`, and nothing is compiled. BLAS runs the matrix products on its own
threads. Operations that treat positions independently (layer norm, softmax, GELU, biases, the causal mask) call `ops`
on some positions at a time, on threads, so that intermediate results stay in a core's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import numpy as np

from ..model import ops
from ..model.arrays import Array, Weight
from ..model.ops import split_heads as split_heads
from ..system.memory import empty
from ..system.threads import Piece, blas_threads, evenly, on_threads, one_blas_thread

CACHED = 1 << 17  # numbers whose intermediate results fit in a core's cache: half a megabyte in float32


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Compute `ops.layer_norm` on some positions at a time."""
    return by_rows(lambda some: ops.layer_norm(some, weight, bias, epsilon), x)


def centred(x: Array) -> Array:
    """Compute `ops.centred` on some positions at a time."""
    return by_rows(ops.centred, x)


def scaled_and_shifted(normalized: Array, weight: Array, bias: Array) -> Array:
    """Compute `ops.scaled_and_shifted` on some positions at a time."""
    return by_rows(lambda some: ops.scaled_and_shifted(some, weight, bias), normalized)


def layer_norm_scale(centred: Array, epsilon: float) -> Array:
    """Compute `ops.layer_norm_scale` on some positions at a time."""
    return by_rows(lambda some: ops.layer_norm_scale(some, epsilon), centred, 1)


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `ops.linear`, adding the bias to some positions at a time."""
    if not isinstance(weight, np.ndarray):
        return ops.linear(x, weight, bias)
    y = np.matmul(x, weight, out=empty((*x.shape[:-1], weight.shape[1]), x.dtype))
    rows = y.reshape(-1, y.shape[-1])
    in_pieces(lambda some: np.add(rows[some], bias, out=rows[some]), len(rows), y.size)
    return y


def unembed(x: Array, lm_head: Weight) -> Array:
    """Compute `ops.unembed`."""
    if not isinstance(lm_head, np.ndarray):
        return ops.unembed(x, lm_head)
    return np.matmul(x, lm_head.T, out=empty((*x.shape[:-1], len(lm_head)), x.dtype))


def activate(x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """Compute `ops.activate` on some positions at a time."""
    return by_rows(lambda some: ops.activate(some, name, parameters), x)


def softmax(scores: Array) -> Array:
    """Compute `ops.softmax` on some queries at a time."""
    return by_rows(ops.softmax, scores)


def attention_scores(q: Array, k: Array, lengths: Array, scale: float) -> Array:
    """Compute `ops.attention_scores`, scaling and masking some heads at a time."""
    B, T, H, _ = q.shape
    scores = empty((B, H, T, k.shape[2]), q.dtype)
    np.matmul(q.transpose(0, 2, 1, 3), k.transpose(0, 1, 3, 2), out=scores)

    def finish(heads: slice) -> None:
        ops.scale_and_hide(scores[:, heads], lengths, scale)

    in_pieces(finish, scores.shape[1], scores.size)
    return scores


def mix_values(pattern: Array, v: Array) -> Array:
    """Compute `ops.mix_values`."""
    B, H, T, S = pattern.shape
    z = empty((B, T, H, v.shape[-1]), pattern.dtype)
    z[...] = (pattern @ v[:, :, :S]).transpose(0, 2, 1, 3)
    return z


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `ops.attention` with this module's functions."""
    S = int(lengths.max()) + q.shape[1]
    return mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])


def by_rows(function: Callable[[Array], Array], x: Array, width: int = 0) -> Array:
    """Compute ``function(x)`` piece by piece, for a function that treats each vector along the last axis independently.

    `width` is the length of its results; 0 means the length of the vector.
    """
    if x.size <= CACHED:
        return function(x)
    rows = x.reshape(-1, x.shape[-1])
    out = empty((len(rows), width or x.shape[-1]), x.dtype)

    def fill(some: slice) -> None:
        out[some] = function(rows[some])

    in_pieces(fill, len(rows), x.size)
    return out.reshape(*x.shape[:-1], -1)


def in_pieces(work: Callable[[slice], object], count: int, size: int) -> None:
    """Call ``work`` on slices that cover `count` items of `size` numbers in total, on threads if `size` is large."""
    if size <= CACHED:
        work(slice(0, count))
        return
    workers = threads()
    pieces = min(count, workers * max(1, round(size / (workers * CACHED))))
    on_threads(work, evenly(count, pieces), workers)


def each(work: Callable[[Piece], object], pieces: Iterable[Piece], size: int, *, one_blas: bool = False) -> None:
    """Call ``work`` on every piece, on threads if the `size` of all pieces together is large; with `one_blas`, BLAS
    works in the thread that calls it.
    """
    workers = threads() if size > CACHED else 1
    with one_blas_thread() if one_blas else nullcontext():
        on_threads(work, pieces, workers)


def threads() -> int:
    """Return as many threads as BLAS may use, so that its settings (``OPENBLAS_NUM_THREADS``, threadpoolctl) hold here
    too.
    """
    return blas_threads()

"""The two products of the model, by what suits their size: dot products for few positions, BLAS for many."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...model import ops
from ...model.arrays import Array, Weight
from ...system.memory import empty
from ...weights.quantize import Matrix
from .product import product
from .threads import in_threads, portions

FEW = 96  # up to so many positions by dot products, which give each the same bits in any company; BLAS from there on
NO_SCALES = np.empty((0, 0), np.float32)


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """As `ops.linear`: dot products for few positions, BLAS for many; `weight` may be a reduced-precision matrix.

    A float32 matrix whose outputs don't lie down (see `layout`) is copied first, at every call.
    """
    flat = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if isinstance(weight, Matrix):
        out = _reduced(flat, weight, bias)
    elif not isinstance(weight, np.ndarray):
        return ops.linear(x, weight, bias)
    elif len(flat) > FEW or x.dtype != np.float32 or weight.dtype != np.float32:
        out = empty((len(flat), weight.shape[1]), x.dtype)

        def part(some: slice) -> None:
            np.matmul(flat, weight[:, some], out=out[:, some])
            out[:, some] += bias[some]

        in_threads(part, portions(weight.shape[1], 768))
    else:
        out = np.empty((len(flat), weight.shape[1]), np.float32)
        product(flat, np.ascontiguousarray(weight.T), NO_SCALES, bias, out)
    return out.reshape(*x.shape[:-1], -1)


def unembed(x: Array, lm_head: Weight) -> Array:
    """As `ops.unembed`: each row of the vocabulary read once for few positions; BLAS for many."""
    flat = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if isinstance(lm_head, Matrix):
        out = _reduced(flat, lm_head, zeros(lm_head.shape[1]))
    elif not isinstance(lm_head, np.ndarray):
        return ops.unembed(x, lm_head)
    elif len(flat) > FEW or x.dtype != np.float32 or lm_head.dtype != np.float32:
        out = empty((len(flat), len(lm_head)), x.dtype)
        in_threads(lambda some: np.matmul(flat, lm_head[some].T, out=out[:, some]), portions(len(lm_head), 4096))
    else:
        out = np.empty((len(flat), lm_head.shape[0]), np.float32)
        product(flat, np.ascontiguousarray(lm_head), NO_SCALES, zeros(len(lm_head)), out)
    return out.reshape(*x.shape[:-1], -1)


@lru_cache(maxsize=4)
def zeros(outputs: int) -> Array:
    """The bias of a vocabulary."""
    return np.zeros(outputs, np.float32)


def _reduced(x: Array, weight: Matrix, bias: Array) -> Array:
    x = x.astype(np.float32, copy=False)
    outputs = weight.shape[1]
    if len(x) > FEW:
        out = empty((len(x), outputs), np.float32)
        x = weight.rounded(x)
        # Some outputs at a time, so that the widened copy stays small.
        pieces = [slice(start, min(outputs, start + 512)) for start in range(0, outputs, 512)]
        in_threads(lambda part: np.matmul(x, weight.dequantize(part), out=out[:, part]), pieces)
        out += bias
        return out
    out = np.empty((len(x), outputs), np.float32)
    product(x, weight.codes, weight.scales, bias, out)
    return out

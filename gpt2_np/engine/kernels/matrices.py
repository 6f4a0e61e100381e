"""The model's two matrix products, `linear` and `unembed`, computed by the panel kernels of any precision."""

from __future__ import annotations

import numpy as np

from ...model import ops
from ...model.arrays import Array, Weight
from ...system.memory import empty
from ...weights.panels import Matrix, no_bias, packed
from .product import product


def linear(x: Array, weight: Weight, bias: Array) -> Array:
    """Compute `ops.linear` for a matrix in panels (`weights.panels`). A float32 array is packed at every call."""
    matrix = in_panels(weight)
    return ops.linear(x, weight, bias) if matrix is None or x.dtype != np.float32 else _product(x, matrix, bias)


def unembed(x: Array, lm_head: Weight) -> Array:
    """Compute `ops.unembed` for an unembedding in panels. A float32 array is packed at every call."""
    matrix = in_panels(lm_head.T if isinstance(lm_head, np.ndarray) else lm_head)
    if matrix is None or x.dtype != np.float32:
        return ops.unembed(x, lm_head)
    return _product(x, matrix, no_bias(matrix.shape[1]))


def in_panels(weight: Weight) -> Matrix | None:
    """Return the matrix in panels; None where the kernels can't take it: float64, and weights with their own
    product.
    """
    if isinstance(weight, Matrix):
        return weight
    return packed(weight) if isinstance(weight, np.ndarray) and weight.dtype == np.float32 else None


def _product(x: Array, matrix: Matrix, bias: Array) -> Array:
    flat = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    out = empty((len(flat), matrix.shape[1]), np.float32)
    product(flat, matrix.codes, matrix.scales, bias, out)
    return out.reshape(*x.shape[:-1], -1)

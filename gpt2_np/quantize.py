"""Reduced-precision matrices: fewer bytes to read for each token, the same arithmetic in float32.

bfloat16 keeps the upper half of each float32; int8 one scale a row (an output) and whole numbers of it. Rows are
outputs, so that a kernel reads each once, from start to end. A `Matrix` stands in ``Linear.weight`` and
``Params.lm_head`` in place of an array: `ops.linear` and `kernels.linear` ask it for its product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .params import Linear, Params

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of (outputs, inputs) in reduced precision.

    ``codes`` is (outputs, inputs): uint16, the bits of bfloat16, or int8. ``scales`` is (outputs, 1) float32, and
    empty for bfloat16.
    """

    codes: Array
    scales: Array

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.codes.size

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        """Bytes that each product reads."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self, rows: slice = slice(None)) -> Array:
        """Rows of the matrix as float32: (outputs, inputs)."""
        codes, scales = self.codes[rows], self.scales[rows]
        if codes.dtype == np.uint16:
            return (codes.astype(np.uint32) << 16).view(np.float32)
        return codes.astype(np.float32) * scales

    def product(self, x: Array) -> Array:
        """x times this matrix: (…, inputs) float32 → (…, outputs) float32. The readable way; `kernels` has another."""
        return x @ self.dequantize().T


def quantize_matrix(weight: Array, dtype: str) -> Matrix:
    """An (outputs, inputs) float32 matrix in reduced precision: "bfloat16" or "int8"."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
        # To the nearest, ties to even: as torch rounds.
        codes = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return Matrix(codes, np.empty((len(weight), 0), np.float32))
    if dtype != "int8":
        raise ValueError(f"dtype must be bfloat16 or int8, got {dtype!r}")
    scales = np.abs(weight).max(axis=1, keepdims=True, initial=0).astype(np.float32) / np.float32(127)
    codes = np.rint(weight / np.where(scales > 0, scales, np.float32(1)))
    return Matrix(codes.astype(np.int8), scales)


def quantize(params: Params, dtype: str) -> Params:
    """The same model with its matrices in reduced precision; norms, biases and positions stay float32.

    ``wte`` stays float32 for look-up where it is mapped from a file (a token reads one row of it); the vocabulary
    projection ``lm_head`` gets a reduced copy of its own.
    """

    def linear(part: Linear) -> Linear:
        return part._replace(weight=quantize_matrix(np.ascontiguousarray(part.weight.T), dtype))

    blocks = []
    for block in params.h:
        attn = block.attn._replace(c_attn=linear(block.attn.c_attn), c_proj=linear(block.attn.c_proj))
        mlp = block.mlp._replace(c_fc=linear(block.mlp.c_fc), c_proj=linear(block.mlp.c_proj))
        blocks.append(block._replace(attn=attn, mlp=mlp))
    return params._replace(h=tuple(blocks), lm_head=quantize_matrix(params.lm_head, dtype))

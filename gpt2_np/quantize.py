"""Reduced-precision matrices: fewer bytes to read for each token, the same arithmetic in float32.

bfloat16 keeps the upper half of each float32. int8 keeps whole numbers and one scale an output. int4 keeps four bits a
weight; every 32 inputs of an output share a scale and a minimum. Matrices keep the checkpoint's orientation, inputs
down, outputs across, so that a kernel reads whole rows. A `Matrix` stands in ``Linear.weight`` and ``Params.lm_head``
in place of an array: `ops.linear` and `kernels.linear` ask it for its product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ops import to_bfloat16
from .params import Linear, Params

Array = np.ndarray

GROUP = 32  # inputs that share a scale and a minimum in int4
REDUCED = ("bfloat16", "int8", "int4")


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of (inputs, outputs) in reduced precision.

    ``codes`` is (inputs, outputs): uint16, the bits of bfloat16, or int8; int4 has two inputs in a byte, the even one
    in the lower half: (inputs / 2, outputs) uint8, with zeros behind the last input up to a whole group.

    ``scales`` is float32, (1, outputs) for int8 and (0, outputs) for bfloat16; for int4 it is (groups, 2, outputs)
    uint16, the bfloat16 bits of each group's scale and minimum.
    """

    codes: Array
    scales: Array
    inputs: int

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.inputs * self.codes.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(inputs, outputs)."""
        return self.inputs, self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that each product reads."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self, outputs: slice = slice(None)) -> Array:
        """The matrix, or some of its outputs, as float32: (inputs, outputs)."""
        codes, scales = self.codes[:, outputs], self.scales[..., outputs]
        if codes.dtype == np.uint16:
            return from_bits(codes)
        if codes.dtype == np.int8:
            return codes.astype(np.float32) * scales
        whole = np.stack([codes & 15, codes >> 4], axis=1).reshape(len(scales), GROUP, codes.shape[1])
        wide = whole * from_bits(scales[:, :1]) + from_bits(scales[:, 1:])
        return wide.reshape(2 * len(codes), codes.shape[1])[: self.inputs]

    def product(self, x: Array) -> Array:
        """x times this matrix: (…, inputs) float32 → (…, outputs) float32. The readable way; `kernels` has another."""
        return x @ self.dequantize()


def from_bits(bits: Array) -> Array:
    """The float32 numbers whose upper halves are these uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(x: Array) -> Array:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even, as torch rounds: uint16."""
    return (to_bfloat16(np.ascontiguousarray(x, np.float32)).view(np.uint32) >> 16).astype(np.uint16)


def quantize_matrix(weight: Array, dtype: str) -> Matrix:
    """An (inputs, outputs) float32 matrix in reduced precision: "bfloat16", "int8" or "int4"."""
    inputs, outputs = weight.shape
    if dtype == "bfloat16":
        return Matrix(to_bits(weight), np.empty((0, outputs), np.float32), inputs)
    if dtype == "int8":
        scales = np.abs(weight).max(axis=0, keepdims=True, initial=0).astype(np.float32) / np.float32(127)
        codes = np.rint(weight / np.where(scales > 0, scales, np.float32(1)))
        return Matrix(np.ascontiguousarray(codes.astype(np.int8)), scales, inputs)
    if dtype != "int4":
        raise ValueError(f"dtype must be one of {', '.join(REDUCED)}, got {dtype!r}")
    groups = np.pad(weight, ((0, -inputs % GROUP), (0, 0)), mode="edge").reshape(-1, GROUP, outputs)
    scale, low = best_grid(groups)
    codes = np.rint((groups - low) / np.where(scale > 0, scale, np.float32(1))).clip(0, 15).astype(np.uint8)
    codes = codes.reshape(-1, 2, outputs)
    return Matrix(codes[:, 0] | codes[:, 1] << 4, to_bits(np.concatenate([scale, low], axis=1)), inputs)


def best_grid(groups: Array) -> tuple[Array, Array]:
    """Scale and minimum of each group, (groups, 1, outputs) each, already rounded to bfloat16.

    Sixteen steps from the smallest weight to the largest would be the obvious grid; a slightly narrower one, which
    cuts off the outermost weights, often has the smaller squared error. The best of a few is taken.
    """
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    middle, half = (low + high) / 2, (high - low) / 2
    best_scale, best_low, least = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)
    for share in (1.0, 0.9, 0.8):
        scale, start = to_bfloat16(half * np.float32(2 * share / 15)), to_bfloat16(middle - half * np.float32(share))
        steps = np.rint((groups - start) / np.where(scale > 0, scale, np.float32(1))).clip(0, 15)
        error = np.square(steps * scale + start - groups).sum(axis=1, keepdims=True)
        better = error < least
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, start, best_low)
        least = np.where(better, error, least)
    return best_scale, best_low


def quantize(params: Params, dtype: str) -> Params:
    """The same model with its matrices in reduced precision; norms, biases and positions stay float32.

    ``wte`` stays float32 for look-up where it is mapped from a file (a token reads one row of it); the vocabulary
    projection ``lm_head`` gets a reduced copy of its own, in int8 where the rest is int4: it decides every token, and
    in a small model it is a third of all weights.
    """

    def linear(part: Linear) -> Linear:
        return part._replace(weight=quantize_matrix(part.weight, dtype))

    blocks = []
    for block in params.h:
        attn = block.attn._replace(c_attn=linear(block.attn.c_attn), c_proj=linear(block.attn.c_proj))
        mlp = block.mlp._replace(c_fc=linear(block.mlp.c_fc), c_proj=linear(block.mlp.c_proj))
        blocks.append(block._replace(attn=attn, mlp=mlp))
    head = quantize_matrix(np.ascontiguousarray(params.lm_head.T), "int8" if dtype == "int4" else dtype)
    return params._replace(h=tuple(blocks), lm_head=head)

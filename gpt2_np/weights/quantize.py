"""Reduced-precision matrices: fewer bytes to read for each token.

bfloat16 keeps the upper half of each float32. int8 keeps whole numbers and one scale an output. int4 keeps four bits a
weight; every 32 inputs of an output share a scale and a middle. What int8 and int4 multiply is rounded to whole numbers
too, finely enough to lose less than the weights do. A `Matrix` stands in ``Linear.weight`` and ``Params.lm_head`` in
place of an array: `ops.linear` and `kernels.linear` ask it for its product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..model.arrays import Array
from ..model.choices import REDUCED as REDUCED
from ..model.ops import to_bfloat16
from ..model.params import Block, Params, as_array, matrices, unembedding, with_weights
from ..system.files import release_pages
from ..system.memory import empty, in_one_piece

GROUP = 32  # inputs that share a scale and a middle in int4
TILE = 64  # outputs that lie side by side in int4
WIDTHS = (1.0, 0.9, 0.8)  # of a grid, as shares of the distance from the smallest weight to the largest
INT8_STEP = np.float32(1 / 16383)  # what a vector's entries are rounded to whole multiples of, as a share of the
INT4_STEP = np.float32(1 / 127)  # largest of them: for int8, and for int4, where each group has a largest of its own


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of (inputs, outputs) in reduced precision.

    For bfloat16 and int8 ``codes`` is (outputs, inputs): uint16, the bits, or int8; ``scales`` is float32, (0, 0) or
    (2, outputs), each output's scale and the sum of its codes, which a kernel needs. For int4 ``codes`` is uint8,
    (tiles, groups, 16, TILE): the group's inputs two in a byte, the even one in the lower half, for TILE outputs side
    by side; ``scales`` is (tiles, groups, 2, TILE) uint16, the bfloat16 bits of each group's scale and middle, the
    value of code 8. The last output and input are repeated up to a whole tile and group.
    """

    codes: Array
    scales: Array
    shape: tuple[int, int]

    @property
    def precision(self) -> str:
        """Which of `REDUCED` it is."""
        return {"uint16": "bfloat16", "int8": "int8", "uint8": "int4"}[self.codes.dtype.name]

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that each product reads."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self, outputs: slice = slice(None)) -> Array:
        """The matrix, or some of its outputs, as float32: (inputs, outputs)."""
        if self.codes.dtype == np.uint16:
            return from_bits(self.codes[outputs]).T
        if self.codes.dtype == np.int8:
            return (self.codes[outputs] * self.scales[0, outputs, None]).T
        start, stop, _ = outputs.indices(self.shape[1])
        codes, scales = (array[start // TILE : -(-stop // TILE)] for array in (self.codes, self.scales))
        tiles, groups = codes.shape[:2]
        whole = np.stack([codes & 15, codes >> 4], axis=3).reshape(tiles, groups, GROUP, TILE).astype(np.float32) - 8
        wide = whole * from_bits(scales[:, :, :1]) + from_bits(scales[:, :, 1:])
        wide = wide.transpose(1, 2, 0, 3).reshape(groups * GROUP, tiles * TILE)
        first = start - start // TILE * TILE
        return wide[: self.shape[0], first : first + max(0, stop - start)]

    def rounded(self, x: Array) -> Array:
        """x, (…, inputs) float32, as this matrix's product takes it: each vector in whole steps, for int8 and int4.

        For int8 a step is 1 / 16383 of the vector's largest entry, for int4 1 / 127 of the largest among 32.
        """
        if self.codes.dtype == np.uint16:
            return x
        size, share = (x.shape[-1], INT8_STEP) if self.codes.dtype == np.int8 else (GROUP, INT4_STEP)
        padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % size)])
        groups = padded.reshape(*x.shape[:-1], -1, size)
        step = np.abs(groups).max(axis=-1, keepdims=True) * share
        levels = np.rint(groups * (np.float32(1) / np.where(step > 0, step, np.float32(1))))
        return (levels * step).reshape(padded.shape)[..., : x.shape[-1]]

    def product(self, x: Array) -> Array:
        """x times this matrix: (…, inputs) float32 → (…, outputs) float32. The readable way; `kernels` has another."""
        return self.rounded(x) @ self.dequantize()


def from_bits(bits: Array) -> Array:
    """The float32 numbers whose upper halves are these uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(x: Array) -> Array:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even, as torch rounds: uint16."""
    return (to_bfloat16(np.ascontiguousarray(x, np.float32)).view(np.uint32) >> 16).astype(np.uint16)


def quantize_matrix(weight: Array, dtype: str) -> Matrix:
    """An (inputs, outputs) float32 matrix in reduced precision: "bfloat16", "int8" or "int4"."""
    shape = inputs, outputs = weight.shape[0], weight.shape[1]
    if dtype == "bfloat16":
        codes = empty((outputs, inputs), np.uint16)
        for some in pieces(outputs):
            codes[some] = to_bits(weight[:, some].T)
        return Matrix(codes, np.empty((0, 0), np.float32), shape)
    if dtype == "int8":
        whole, scales = empty((outputs, inputs), np.int8), np.empty((2, outputs), np.float32)
        for some in pieces(outputs):
            largest = np.abs(weight[:, some]).max(axis=0, keepdims=True, initial=0).astype(np.float32)
            scales[0, some] = largest[0] / np.float32(127)
            whole[some] = np.rint(weight[:, some] / np.where(largest > 0, scales[:1, some], np.float32(1))).T
            scales[1, some] = whole[some].sum(axis=1, dtype=np.int32)
        return Matrix(whole, scales, shape)
    if dtype != "int4":
        raise ValueError(f"dtype must be one of {', '.join(REDUCED)}, got {dtype!r}")
    padded = np.pad(weight, ((0, -inputs % GROUP), (0, -outputs % TILE)), mode="edge")
    groups = padded.reshape(-1, GROUP, padded.shape[1] // TILE, TILE).transpose(2, 0, 1, 3)  # (tiles, groups, 32, TILE)
    scale, middle = best_grid(groups)
    codes = (np.rint((groups - middle) / np.where(scale > 0, scale, np.float32(1))) + 8).clip(0, 15).astype(np.uint8)
    pairs = codes.reshape(*codes.shape[:2], GROUP // 2, 2, TILE)
    packed = np.ascontiguousarray(pairs[..., 0, :] | pairs[..., 1, :] << 4)
    return Matrix(packed, to_bits(np.concatenate([scale, middle], axis=2)), shape)


def pieces(outputs: int, size: int = 2048) -> list[slice]:
    """Some outputs at a time, so that what is computed on the way stays small."""
    return [slice(start, start + size) for start in range(0, outputs, size)]


def best_grid(groups: Array) -> tuple[Array, Array]:
    """Scale and middle of each group, (…, 32, TILE) → two of (…, 1, TILE), already rounded to bfloat16.

    Sixteen steps from the smallest weight to the largest would be the obvious grid; a slightly narrower one, which
    cuts off the outermost weights, often has the smaller squared error. The best of a few is taken.
    """
    low, high = groups.min(axis=-2, keepdims=True), groups.max(axis=-2, keepdims=True)
    best_scale, best_middle, least = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)
    for share in WIDTHS:
        scale = to_bfloat16((high - low) * np.float32(share / 15))
        middle = to_bfloat16(low / 2 + high / 2 + scale / 2)
        steps = np.rint((groups - middle) / np.where(scale > 0, scale, np.float32(1))).clip(-8, 7)
        error = np.square(steps * scale + middle - groups).sum(axis=-2, keepdims=True)
        better = (error < least) | (share == WIDTHS[0])  # errors may all be too large for float32
        best_scale, best_middle = np.where(better, scale, best_scale), np.where(better, middle, best_middle)
        least = np.where(better, error, least)
    return best_scale, best_middle


def quantize(params: Params, dtype: str) -> Params:
    """The same model with its matrices in reduced precision; norms, biases and positions stay float32.

    ``wte`` stays float32 for look-up where it is mapped from a file (a token reads one row of it); the vocabulary
    projection ``lm_head`` gets a reduced copy of its own, in int8 where the rest is int4: it decides every token, and
    in a small model it is a third of all weights.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the logits tell (`overflow`)
        head = quantize_matrix(unembedding(params).T, "int8" if dtype == "int4" else dtype)
        release_pages(unembedding(params))
        return params._replace(h=tuple(quantize_block(block, dtype) for block in params.h), lm_head=head)


def quantize_block(block: Block, dtype: str) -> Block:
    """A block with its four matrices in reduced precision, in one piece of memory."""
    parts = matrices(block)
    reduced = with_weights(block, side_by_side([quantize_matrix(as_array(part.weight), dtype) for part in parts]))
    for part in parts:
        release_pages(as_array(part.weight))
    return reduced


def side_by_side(several: list[Matrix]) -> list[Matrix]:
    """The same matrices with their codes in one piece of memory.

    It lies in large pages where the system grants them, and the processor finds its way faster.
    """
    places = in_one_piece([matrix.codes.shape for matrix in several], several[0].codes.dtype)
    for place, matrix in zip(places, several, strict=True):
        place[...] = matrix.codes
    return [replace(matrix, codes=place) for matrix, place in zip(several, places, strict=True)]

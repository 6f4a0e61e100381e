"""The packed layout of matrices: panels of TILE outputs, each contiguous, so that a kernel reads it from end to end.

A checkpoint stores a matrix as (inputs, outputs), row after row. A panel holds TILE neighbouring outputs, input after
input, like the packed panels of BLIS (Van Zee and van de Geijn 2015): one input is multiplied with a whole vector of
weights, and each output's sum has its own lane. The layout depends on the precision:

    float32    (tiles, D, TILE)            float32
    bfloat16   (tiles, ⌈D / 32⌉ · 16, TILE)     uint32: an input's bits in the lower half, the next one's in the upper
    int8       (tiles, ⌈D / 4⌉, TILE, 4)   int8: four inputs of an output, which one instruction multiplies and adds up
    int4       (tiles, ⌈D / 32⌉ · 4, TILE, 4)   uint8: codes of eight inputs, the first four in the lower half bytes

The last panel's missing outputs, and missing inputs, are zeros; int4 repeats the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..display import Readable
from ..model.arrays import Array
from ..model.ops import to_bfloat16
from ..system.memory import empty

TILE = 64  # outputs in a panel
GROUP = 32  # inputs that share a scale and a midpoint in int4
INT8_STEP = np.float32(1 / 16383)  # the quantization step of a vector's entries, relative to the
INT4_STEP = np.float32(1 / 127)  # largest entry: of the vector for int8, of each group for int4
LONGEST = 1 << 16  # inputs of an int8 matrix at most: 32 bits hold the sum of so many products of 255 · 127
NO_SCALES = np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Matrix(Readable):
    """A matrix of (inputs, outputs) in panels, in float32 or reduced precision.

    ``codes`` are the weights, in the layout above. ``scales`` is (0, 0) float32 for float32 and bfloat16; for int8 (2,
    outputs) float32, each output's scale and the sum of its codes, which a kernel needs; for int4 (tiles, groups, 2,
    TILE) uint16, the bfloat16 bits of each group's scale and of its midpoint, the value of code 8.
    """

    codes: Array
    scales: Array
    shape: tuple[int, int]

    @property
    def precision(self) -> str:
        """Its precision: "float32" or one of `model.choices.REDUCED`."""
        return {"float32": "float32", "uint32": "bfloat16", "int8": "int8", "uint8": "int4"}[self.codes.dtype.name]

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """The number of bytes that each product reads."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self, outputs: slice = slice(None)) -> Array:
        """Return the matrix, or some of its outputs, as float32: (inputs, outputs)."""
        start, stop, _ = outputs.indices(self.shape[1])
        some = slice(start // TILE, -(-stop // TILE))
        wide = unpacked(self.codes[some]).transpose(1, 0, 2)  # (D, tiles, TILE)
        if self.precision == "int8":
            wide = wide.reshape(len(wide), -1)[: self.shape[0]]
            first = some.start * TILE
            return wide[:, start - first : max(start, stop) - first] * self.scales[0, start : max(start, stop)]
        if self.precision == "int4":
            scale, middle = (from_bits(self.scales[some, :, which]) for which in (0, 1))  # (tiles, groups, TILE)
            groups = wide.reshape(-1, GROUP, *wide.shape[1:])
            wide = groups * scale.transpose(1, 0, 2)[:, None] + middle.transpose(1, 0, 2)[:, None]
        wide = wide.reshape(-1, wide.shape[-2] * TILE)
        first = start - some.start * TILE
        return wide[: self.shape[0], first : first + max(0, stop - start)]

    def rounded(self, x: Array) -> Array:
        """Round x, (…, inputs) float32, as this matrix's product does: to bfloat16, or for int8 and int4 each vector to
        multiples of a step.

        For int8 the step is 1 / 16383 of the vector's largest entry, for int4 1 / 127 of the largest among 32.
        """
        if self.precision == "float32":
            return x
        if self.precision == "bfloat16":
            return to_bfloat16(x)
        size, share = (x.shape[-1], INT8_STEP) if self.precision == "int8" else (GROUP, INT4_STEP)
        padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % size)])
        groups = padded.reshape(*x.shape[:-1], -1, size)
        step = np.abs(groups).max(axis=-1, keepdims=True) * share
        levels = np.rint(groups * (np.float32(1) / np.where(step > 0, step, np.float32(1))))
        return (levels * step).reshape(padded.shape)[..., : x.shape[-1]]

    def product(self, x: Array) -> Array:
        """Return x times this matrix: (…, inputs) float32 → (…, outputs) float32. This is the readable twin of
        `kernels`.
        """
        return self.rounded(x) @ self.dequantize()


def packed(weight: Array) -> Matrix:
    """Pack an (inputs, outputs) float32 matrix into panels."""
    D, F = weight.shape
    codes = empty(panel_shape(D, F), np.float32)
    pack_panels(weight, codes, slice(0, len(codes)))
    return Matrix(codes, NO_SCALES, (D, F))


@lru_cache(maxsize=4)
def no_bias(outputs: int) -> Array:
    """Return the bias of the unembedding, which has none: zeros."""
    return np.zeros(outputs, np.float32)


def panel_shape(D: int, F: int) -> tuple[int, int, int]:
    """Return the shape of a float32 matrix's panels."""
    return -(-F // TILE), D, TILE


def pack_panels(weight: Array, codes: Array, some: slice) -> None:
    """Fill some of a float32 matrix's panels."""
    D, F = weight.shape
    whole = slice(some.start, min(some.stop, F // TILE))
    if whole.stop > whole.start:
        outputs = weight[:, whole.start * TILE : whole.stop * TILE]
        codes[whole] = outputs.reshape(D, -1, TILE).swapaxes(0, 1)
    if some.stop > F // TILE:  # the last panel's missing outputs are zeros
        codes[-1, :, : F % TILE] = weight[:, F - F % TILE :]
        codes[-1, :, F % TILE :] = 0


def packed_bfloat16(bits: Array) -> Array:
    """Pack an (inputs, outputs) matrix of bfloat16's bits, uint16: (tiles, ⌈D / 32⌉ · 16, TILE) uint32."""
    D, F = bits.shape
    padded = np.pad(bits, ((0, -D % GROUP), (0, -F % TILE)))
    pairs = padded.reshape(len(padded) // 2, 2, -1, TILE)
    codes = empty((pairs.shape[2], len(pairs), TILE), np.uint32)
    codes.view(np.uint16).reshape(*codes.shape, 2)[...] = pairs.transpose(2, 0, 3, 1)
    return codes


def packed_int8(whole: Array) -> Array:
    """Pack an (inputs, outputs) int8 matrix: (tiles, ⌈D / 4⌉, TILE, 4) int8."""
    D, F = whole.shape
    padded = np.pad(whole, ((0, -D % 4), (0, -F % TILE))).reshape(-(-D // 4), 4, -1, TILE)
    codes = empty((padded.shape[2], len(padded), TILE, 4), np.int8)
    codes[...] = padded.transpose(2, 0, 3, 1)
    return codes


def packed_int4(groups: Array) -> Array:
    """Pack int4's codes from 0 to 15, (tiles, groups, GROUP, TILE): (tiles, groups · 4, TILE, 4) uint8."""
    eights = groups.reshape(*groups.shape[:2], GROUP // 8, 2, 4, TILE)
    codes = empty((len(groups), groups.shape[1] * GROUP // 8, TILE, 4), np.uint8)
    both = eights[:, :, :, 0] | eights[:, :, :, 1] << 4
    codes.reshape(*both.shape[:3], TILE, 4)[...] = both.swapaxes(-1, -2)
    return codes


def unpacked(codes: Array) -> Array:
    """Unpack panels of any precision to float32: (tiles, inputs, TILE); integers without their scales.

    An int4 code stands for its distance from 8. There may be more inputs than the matrix has.
    """
    if codes.dtype == np.float32:
        return codes
    if codes.dtype == np.uint32:
        halves = np.stack([codes << 16, codes & np.uint32(0xFFFF0000)], axis=2).view(np.float32)
        return halves.reshape(len(codes), -1, codes.shape[-1])
    if codes.dtype == np.int8:
        return codes.astype(np.float32).swapaxes(2, 3).reshape(len(codes), -1, TILE)
    both = np.stack([codes & 15, codes >> 4], axis=2).astype(np.float32) - 8  # (tiles, eights, 2, TILE, 4)
    return both.swapaxes(3, 4).reshape(len(codes), -1, TILE)


def from_bits(bits: Array) -> Array:
    """Return the float32 numbers whose upper halves are these uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(x: Array) -> Array:
    """Return the upper halves of float32 numbers, rounded to the nearest, ties to even, as torch rounds: uint16."""
    return (to_bfloat16(np.ascontiguousarray(x, np.float32)).view(np.uint32) >> 16).astype(np.uint16)

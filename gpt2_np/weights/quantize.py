"""Quantization: matrices of reduced precision, so that each token reads fewer bytes from memory.

bfloat16 keeps the upper half of each float32. int8 keeps 8-bit integers and one scale per output. int4 keeps four bits
per weight; every 32 inputs of an output share a scale and a midpoint. int8 and int4 products also round their inputs to
integers, finely enough to lose less than the weights do. A `Matrix` replaces the array in ``Linear.weight`` and
``Params.lm_head``: `ops.linear` and `kernels.linear` call its own product.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..model.arrays import Array
from ..model.choices import REDUCED as REDUCED
from ..model.ops import to_bfloat16
from ..model.params import Block, Params, as_array, matrices, unembedding, with_weights
from ..system.files import release_pages
from ..system.memory import empty, in_one_piece
from .panels import GROUP, LONGEST, NO_SCALES, TILE, Matrix, packed_bfloat16, packed_int4, packed_int8, to_bits

WIDTHS = (1.0, 0.9, 0.8)  # widths of a grid, relative to the distance from the smallest weight to the largest


def quantize_matrix(weight: Array, dtype: str) -> Matrix:
    """Quantize an (inputs, outputs) float32 matrix: "bfloat16", "int8" or "int4"."""
    shape = inputs, outputs = weight.shape[0], weight.shape[1]
    tiles = -(-outputs // TILE)
    if dtype == "bfloat16":
        halves = empty((tiles, -(-inputs // GROUP) * GROUP // 2, TILE), np.uint32)
        for some in pieces(outputs):
            halves[some.start // TILE : -(-some.stop // TILE)] = packed_bfloat16(to_bits(weight[:, some]))
        return Matrix(halves, NO_SCALES, shape)
    if dtype == "int8":
        if inputs > LONGEST:
            raise ValueError(f"int8 matrices can have at most {LONGEST} inputs, got {inputs}")
        fours, scales = empty((tiles, -(-inputs // 4), TILE, 4), np.int8), np.empty((2, outputs), np.float32)
        for some in pieces(outputs):
            largest = np.abs(weight[:, some]).max(axis=0, keepdims=True, initial=0).astype(np.float32)
            scales[0, some] = largest[0] / np.float32(127)
            whole = np.rint(weight[:, some] / np.where(largest > 0, scales[:1, some], np.float32(1))).astype(np.int8)
            scales[1, some] = whole.sum(axis=0, dtype=np.int32)
            fours[some.start // TILE : -(-some.stop // TILE)] = packed_int8(whole)
        return Matrix(fours, scales, shape)
    if dtype != "int4":
        raise ValueError(f"dtype must be one of {', '.join(REDUCED)}, got {dtype!r}")
    padded = np.pad(weight, ((0, -inputs % GROUP), (0, -outputs % TILE)), mode="edge")
    groups = padded.reshape(-1, GROUP, padded.shape[1] // TILE, TILE).transpose(2, 0, 1, 3)  # (tiles, groups, 32, TILE)
    scale, middle = best_grid(groups)
    codes = (np.rint((groups - middle) / np.where(scale > 0, scale, np.float32(1))) + 8).clip(0, 15).astype(np.uint8)
    return Matrix(packed_int4(codes), to_bits(np.concatenate([scale, middle], axis=2)), shape)


def pieces(outputs: int, size: int = 32 * TILE) -> list[slice]:
    """Yield slices of whole panels' outputs, so that intermediate arrays stay small."""
    return [slice(start, min(outputs, start + size)) for start in range(0, outputs, size)]


def best_grid(groups: Array) -> tuple[Array, Array]:
    """Return scale and midpoint of each group, (…, 32, TILE) → two of (…, 1, TILE), already rounded to bfloat16.

    The obvious grid has sixteen steps from the smallest weight to the largest; a slightly narrower one, which clips the
    outermost weights, often has the smaller squared error. The best of a few is taken.
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
    """Return the same model with quantized matrices; norms, biases and positions stay float32.

    ``wte`` stays float32 for look-up where it is mapped from a file (a token reads one row of it). The unembedding
    ``lm_head`` gets a reduced copy of its own, in int8 where the rest is int4: it decides every token, and in a small
    model it is a third of all weights.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the logits tell (`overflow`)
        head = quantize_matrix(unembedding(params).T, "int8" if dtype == "int4" else dtype)
        release_pages(unembedding(params))
        return params._replace(h=tuple(quantize_block(block, dtype) for block in params.h), lm_head=head)


def quantize_block(block: Block, dtype: str) -> Block:
    """Return a block with its four matrices quantized, in one allocation."""
    parts = matrices(block)
    reduced = with_weights(block, side_by_side([quantize_matrix(as_array(part.weight), dtype) for part in parts]))
    for part in parts:
        release_pages(as_array(part.weight))
    return reduced


def side_by_side(several: list[Matrix]) -> list[Matrix]:
    """Return the same matrices with their codes in one allocation.

    It is in large pages where the system grants them, which makes access faster.
    """
    places = in_one_piece([matrix.codes.shape for matrix in several], several[0].codes.dtype)
    for place, matrix in zip(places, several, strict=True):
        place[...] = matrix.codes
    return [replace(matrix, codes=place) for matrix, place in zip(several, places, strict=True)]

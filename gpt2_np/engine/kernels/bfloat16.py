"""bfloat16 matrices times any number of vectors: half of float32's bytes, and sums in float32.

A row's inputs are rounded to bfloat16 too (`bfloat16_inputs`), by that row alone, so that the product is
batch-invariant. Where the processor has AMX for bfloat16, every product uses its tiles (`bfloat16_tiles`), even for a
single row; elsewhere every product uses vectors. With AVX512-BF16 one instruction multiplies pairs of inputs and
weights, and a word of two takes the place of a float32 number. Without, weights are widened to float32, for many rows a
block of a panel at a time (`bfloat16_blocks`), with AVX2 a whole panel (`float32.panel_of_many_rows`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange, types, void

from ...weights.panels import GROUP, TILE
from .amx import CACHED, HALVES, ROWS, aligned
from .bfloat16_blocks import FEWEST_TO_WIDEN, widen, widened_panel
from .bfloat16_inputs import rounded_rows, words2, words_of_rows
from .bfloat16_tiles import halves1, panel_by_tiles, tiles_of_rows
from .compiled import compiled
from .float32 import in_whole_passes, panel_and_bias, panel_of_many_rows
from .kernel_types import PARALLEL, SERIAL, halves3, matrix, out2, threads_here, vector
from .panel_passes import ROWS_PER_TASK, one_thread
from .simd import AVX512, BFLOAT16

Array = np.ndarray


def _pairs_panel(n: int, words: Array, panels: Array, bias: Array, out: Array) -> None:
    panel_and_bias(n, words, panels, 1, bias, out)


def _vectors_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    many = in_whole_passes(len(x))
    if many > 0:
        whole = np.empty((1, x.shape[1], TILE), np.float32)
        widen(panels, n, 0, x.shape[1], whole)
        panel_of_many_rows(n, x[:many], whole[0], bias, out[:many])
    if many < len(x):
        panel_and_bias(n, x[many:], panels, 2, bias, out[many:])


def _widening_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    if len(x) < FEWEST_TO_WIDEN:
        panel_and_bias(n, x, panels, 2, bias, out)
    else:
        widened_panel(n, x, panels, bias, out)


def _tiles_panel(n: int, tiles: Array, panels: Array, bias: Array, out: Array) -> None:
    panel_by_tiles(n, tiles, panels, bias, out)


# How inputs are rounded, to numbers of which kind, and how many of them share one; then one panel, which is compiled
# once for the serial and the parallel loop over panels.
_round, _kind, _share = (words_of_rows, np.uint32, 2) if BFLOAT16 else (rounded_rows, np.float32, 1)
_inputs: Any
_one_panel: Callable[..., None]
if HALVES:
    _inputs, _one_panel = halves1, _tiles_panel
elif BFLOAT16:
    _inputs, _one_panel = words2, _pairs_panel
else:
    _inputs, _one_panel = matrix, _widening_panel if AVX512 else _vectors_panel
bfloat16_panel = compiled(void(types.int64, _inputs, halves3, vector, out2), **SERIAL)(_one_panel)


def by_vectors(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `bfloat16_panels` by vectors; panels have two inputs to a word, so an odd number gets a 0 more."""
    R, D = x.shape
    inputs = np.empty((R, (D + 1) // 2 * 2 // _share), _kind)
    if one_thread(R):
        _round(x, inputs)
    else:
        for part in prange((R + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
            first, end = part * ROWS_PER_TASK, min(R, part * ROWS_PER_TASK + ROWS_PER_TASK)
            _round(x[first:end], inputs[first:end])
    if threads_here() == 1:
        for n in range(len(codes)):
            bfloat16_panel(n, inputs, codes, bias, out)
    else:
        for n in prange(len(codes)):
            bfloat16_panel(np.int64(n), inputs, codes, bias, out)


def by_tiles(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `bfloat16_panels` by AMX, for as many rows at a time as fit in the cache."""
    R, D = len(x), (x.shape[1] + GROUP - 1) // GROUP * GROUP
    some = max(1, CACHED // (2 * D * ROWS)) * ROWS
    tiles = aligned(min(R, some) * D * 2).view(np.uint16)
    for start in range(0, R, some):
        end = min(R, start + some)
        if one_thread(end - start):
            tiles_of_rows(x[start:end], tiles)
        else:
            for share in prange((end - start + ROWS - 1) // ROWS):
                first = start + share * ROWS
                tiles_of_rows(x[first : min(end, first + ROWS)], tiles[share * ROWS * D :])
        if threads_here() == 1:
            for n in range(len(codes)):
                bfloat16_panel(n, tiles, codes, bias, out[start:end])
        else:
            for n in prange(len(codes)):
                bfloat16_panel(np.int64(n), tiles, codes, bias, out[start:end])


_panels = compiled(void(matrix, halves3, matrix, vector, out2), **PARALLEL)(by_tiles if HALVES else by_vectors)


@compiled(void(matrix, halves3, matrix, vector, out2), **SERIAL | {"nogil": False})
def bfloat16_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `float32.float32_panels` for panels of bfloat16, and inputs rounded to bfloat16."""
    _panels(x, codes, scales, bias, out)

"""bfloat16 matrices times any number of vectors: half of float32's bytes, and sums in float32.

Where the processor has AMX for bfloat16, every product uses its tiles (`bfloat16_tiles`), even for a single row, so
that the product is batch-invariant; elsewhere every product uses vectors (`float32`).
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void

from ...weights.panels import GROUP
from .amx import CACHED, HALVES, ROWS, aligned
from .bfloat16_blocks import FEWEST_TO_WIDEN, widened_panel
from .bfloat16_tiles import PARTS, halves1, panel_by_tiles, parts_of_rows
from .compiled import compiled
from .float32 import panel_and_bias
from .kernel_types import PARALLEL, SERIAL, halves3, matrix, out2, threads_here, vector
from .panel_passes import one_thread
from .simd import AVX512

Array = np.ndarray


def _vectors_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    panel_and_bias(n, x, panels, 2, bias, out)


def _widening_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    if len(x) < FEWEST_TO_WIDEN:
        panel_and_bias(n, x, panels, 2, bias, out)
    else:
        widened_panel(n, x, panels, bias, out)


def _tiles_panel(n: int, parts: Array, panels: Array, bias: Array, out: Array) -> None:
    panel_by_tiles(n, parts, panels, bias, out)


# One panel. It is compiled once for the serial and the parallel loop over panels.
_without_tiles = _widening_panel if AVX512 else _vectors_panel
_inputs, _one_panel = (halves1, _tiles_panel) if HALVES else (matrix, _without_tiles)
bfloat16_panel = compiled(void(types.int64, _inputs, halves3, vector, out2), **SERIAL)(_one_panel)


def by_vectors(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `bfloat16_panels` for an even number of inputs, two of which share a word."""
    if threads_here() == 1:
        for n in range(len(codes)):
            bfloat16_panel(n, x, codes, bias, out)
    else:
        for n in prange(len(codes)):
            bfloat16_panel(np.int64(n), x, codes, bias, out)


def by_tiles(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `bfloat16_panels` by AMX, for as many rows at a time as fit in the cache."""
    R, D = len(x), (x.shape[1] + GROUP - 1) // GROUP * GROUP
    some = max(1, CACHED // (PARTS * 2 * D * ROWS)) * ROWS
    parts = aligned(min(R, some) * PARTS * D * 2).view(np.uint16)
    for start in range(0, R, some):
        end = min(R, start + some)
        if one_thread(end - start):
            parts_of_rows(x[start:end], parts)
        else:
            for share in prange((end - start + ROWS - 1) // ROWS):
                first = start + share * ROWS
                parts_of_rows(x[first : min(end, first + ROWS)], parts[share * ROWS * PARTS * D :])
        if threads_here() == 1:
            for n in range(len(codes)):
                bfloat16_panel(n, parts, codes, bias, out[start:end])
        else:
            for n in prange(len(codes)):
                bfloat16_panel(np.int64(n), parts, codes, bias, out[start:end])


_panels = compiled(void(matrix, halves3, matrix, vector, out2), **PARALLEL)(by_tiles if HALVES else by_vectors)


@compiled(void(matrix, halves3, matrix, vector, out2), **SERIAL | {"nogil": False})
def bfloat16_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `float32.float32_panels` for panels of bfloat16."""
    R, D = x.shape
    if HALVES or D % 2 == 0:
        _panels(x, codes, scales, bias, out)
    else:
        even = np.zeros((R, D + 1), np.float32)
        even[:, :D] = x
        _panels(even, codes, scales, bias, out)

"""int8 matrices times any number of vectors: sums of whole numbers, which are the same in any order.

The vectors' entries are rounded to whole numbers first (`weights.panels.Matrix.rounded` says how finely). Any number of
threads, any batch, and vectors or tiles give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import void

from .amx import BYTES_OF_ROW, TILES
from .compiled import compiled
from .int8_vectors import by_vectors
from .kernel_types import SERIAL, codes8, matrix, out2, vector

Array = np.ndarray
FOR_TILES = 4  # rows from which on AMX is faster

if TILES:
    from .int8_tiles import by_tiles
else:
    by_tiles = by_vectors


@compiled(void(matrix, codes8, matrix, vector, out2), **SERIAL | {"nogil": False})
def int8_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """x @ (codes · scales) + bias into ``out``: (R, D), codes and scales as in `weights.panels`, (F,) → (R, F).

    Sums are exact. Many rows, whose inputs fill tiles, go through AMX where it is.
    """
    if len(x) >= FOR_TILES and codes.shape[1] % (BYTES_OF_ROW // 4) == 0:
        by_tiles(x, codes, scales, bias, out)
    else:
        by_vectors(x, codes, scales, bias, out)

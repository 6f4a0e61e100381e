"""int8 matrices times any number of vectors, in exact integer arithmetic.

The vectors' entries are first rounded to integers (`weights.panels.Matrix.rounded` says how finely). Integer sums are
the same in any order, so the product is batch-invariant: it has the same bits with any number of threads, in any batch,
and by vectors or by tiles.
"""

from __future__ import annotations

import numpy as np
from numba import void

from .amx import BYTES_OF_ROW, TILES
from .compiled import compiled
from .kernel_types import SERIAL, codes8, matrix, out2, vector
from .simd import VNNI

Array = np.ndarray
FOR_TILES = 4  # AMX is faster from so many rows on

if VNNI:
    from .int8_vectors import by_vectors
else:
    from .int8_pairs import by_pairs as by_vectors

if TILES:
    from .int8_tiles import by_tiles
else:
    by_tiles = by_vectors


@compiled(void(matrix, codes8, matrix, vector, out2), **SERIAL | {"nogil": False})
def int8_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x @ (codes · scales) + bias into ``out``: (R, D), codes and scales as in `weights.panels`, (F,) → (R, F).

    The sums are exact. Several rows whose inputs fill tiles are multiplied by AMX where the processor has it.
    """
    if len(x) >= FOR_TILES and x.shape[1] % BYTES_OF_ROW == 0:
        by_tiles(x, codes, scales, bias, out)
    else:
        by_vectors(x, codes, scales, bias, out)

"""Tables of addresses: one array argument stands for hundreds of arrays, which saves a decoding step their look-up.

The arrays that a step needs besides ids stay the same from step to step. Unpacking a NumPy array from Python costs
several cache misses, because the weights have displaced everything else from the cache since the last step. So the step
receives a table of addresses and shapes instead. Compiled code reads it with `table_arrays`.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

NUMBERS_PER_ARRAY = 5  # an address and a shape of at most four dimensions
# What packed weights are for compiled code, by ``dtype.char`` of their codes (float32, bfloat16, int8, int4): the types
# of codes and scales, named as in `kernel_types`, which needs Numba.
WEIGHT_TYPES = {
    "f": ("panels3", "matrix"),
    "I": ("halves3", "matrix"),
    "b": ("codes8", "matrix"),
    "B": ("codes4", "grids"),
}


def address_table(rows: list[tuple[Array, ...]]) -> Array:
    """Return the addresses and shapes of arrays, for `layer` and `others`: (rows, arrays · NUMBERS_PER_ARRAY) int64.

    The arrays must be contiguous and must outlive the table.
    """
    return np.array(
        [
            [
                number
                for array in row
                for number in (array.ctypes.data, *array.shape, *[1] * (NUMBERS_PER_ARRAY - 1 - array.ndim))
            ]
            for row in rows
        ],
        np.int64,
    )

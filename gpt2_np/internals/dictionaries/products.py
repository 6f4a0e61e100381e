"""Which functions a dictionary of many features takes: compiled ones, where Numba loads, or NumPy's."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ...engine import available
from ...gradients import products
from ...system.memory import empty
from . import activation_functions

Array = np.ndarray
LARGE = 1 << 22  # numbers: for fewer Numba isn't loaded


def implementation(*arrays: Array) -> ModuleType:
    """Return `compiled_functions` for features or pre-activations, (n, F), that are many, else `activation_functions`.

    All other arrays of the computation are given too: where one isn't float32 or not contiguous, NumPy is used. The
    activation functions' bits are the same, so nobody need choose.
    """
    plain = all(x.dtype == np.float32 and x.flags.c_contiguous for x in arrays)
    if arrays[0].size < LARGE or not plain or not available.installed() or not available.loads():
        return activation_functions
    from . import compiled_functions

    return activation_functions if compiled_functions.PLAIN else compiled_functions


def product(features: Array, directions: Array) -> Array:
    """Return features @ directions, (n, F) and (F, O): sparse, row by row over the features that fire, where that is
    faster.

    A dense product does about 95 multiplications a nanosecond on two cores. What a sparse one takes for a row, and for
    each number of a direction, which is read from memory, is with its functions (measured at 512 × 24,576 × 768).
    """
    n, F = features.shape
    O = directions.shape[1]
    functions = implementation(features, directions)
    of_row, of_number = functions.NANOSECONDS
    out = empty((n, O), np.result_type(features, directions))
    if not n or n * (F * O / 95 - of_row) < np.count_nonzero(features) * O * of_number:
        return products.product(features, directions, out)
    functions.sparse_product(features, directions, out)
    return out

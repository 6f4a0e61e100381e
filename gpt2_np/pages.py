"""Arrays that begin where a large page of memory does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LARGE = 1 << 21  # bytes, where processors are x86


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """As ``numpy.empty``; what is larger than half a large page begins with one, and may fill its last one.

    NumPy asks the system for large pages from 4 MB on, but an array that begins anywhere begins and ends with hundreds
    of small ones, each of which costs microseconds when it is first written to.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE // 2:
        return np.empty(shape, dtype)
    ample = -(-size // LARGE) * LARGE
    memory = np.empty((ample if ample - size <= LARGE // 4 else size) + LARGE, np.uint8)
    first = -memory.ctypes.data % LARGE
    return memory[first : first + size].view(dtype).reshape(shape)

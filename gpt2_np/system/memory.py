"""Arrays that are aligned to a large page or to a cache line, and whose memory is reused (`reuse`)."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .reuse import POOL

if TYPE_CHECKING:
    import numpy.typing as npt

Array = np.ndarray
LARGE_PAGE = 1 << 21  # bytes, where processors are x86
CACHE_LINE = 64  # bytes


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array like ``numpy.empty``, aligned to a large page if it is larger than half of one, else to a cache
    line.

    A vector that straddles two cache lines is loaded twice. NumPy asks the system for large pages from 4 MB on, but an
    unaligned array has hundreds of small pages at its two ends, each of which costs microseconds at the first write. A
    layer also needs the arrays that the layer before has just freed: such memory is reused, since its pages exist
    already.
    """
    return _array(shape, dtype, zeros=False)


def in_one_piece(shapes: Sequence[tuple[int, ...]], dtype: npt.DTypeLike) -> list[Array]:
    """Return several arrays in one allocation, each aligned to a cache line."""
    line = CACHE_LINE // np.dtype(dtype).itemsize
    starts = [0, *accumulate(-(-math.prod(shape) // line) * line for shape in shapes)]
    whole = empty((starts[-1],), dtype)
    return [
        whole[first : first + math.prod(shape)].reshape(shape) for shape, first in zip(shapes, starts[:-1], strict=True)
    ]


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array like ``numpy.zeros``, aligned as `empty` aligns."""
    return _array(shape, dtype, zeros=True)


def scattered(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array like ``numpy.zeros`` in small pages: only the written parts of it take memory.

    ``MemoryError`` if the system has no room for its addresses.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.zeros(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError(f"{size >> 20} MiB can't be reserved") from None
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a system without large pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def _array(shape: tuple[int, ...], dtype: npt.DTypeLike, *, zeros: bool) -> Array:
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE_PAGE // 2:
        fresh = np.zeros if zeros else np.empty
        beginning, again, memory = CACHE_LINE, None, fresh(size + CACHE_LINE, np.uint8)
    else:
        ample = -(-size // LARGE_PAGE) * LARGE_PAGE
        total = (ample if ample - size <= LARGE_PAGE // 4 else size) + LARGE_PAGE
        beginning, again = LARGE_PAGE, POOL.take(total)
        memory = np.asarray(_Lent(_pages(total) if again is None else again))
    array = np.ndarray(shape, dtype, memory, -memory.__array_interface__["data"][0] % beginning)
    if zeros and again is not None:
        array.fill(0)
    return array


def _pages(size: int) -> Array:
    """Return bytes of 0 in pages of their own, large ones where there are some, which go back when they are freed.

    C's allocator would keep a freed block between two others for later, and a second capture of everything held a
    third more than the first.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.zeros(size, np.uint8)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        POOL.clear()
        return np.zeros(size, np.uint8)  # or else a MemoryError of NumPy's, in its words
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class _Lent:
    """A block of memory that arrays lie in. The arrays refer to it, and it is freed together with the last of them."""

    def __init__(self, memory: Array) -> None:
        self.memory, self.__array_interface__ = memory, memory.__array_interface__

    def __del__(self) -> None:
        POOL.free(self.memory)

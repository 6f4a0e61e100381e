"""Arrays that begin where a large page of memory does, or a line of the processor's cache; memory is used again."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Array = np.ndarray
LARGE = 1 << 21  # bytes, where processors are x86
LINE = 64  # bytes
KEPT = 1 << 27  # bytes of memory at most that wait for the next array


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As ``numpy.empty``; what is larger than half a large page begins with one, and may fill its last one.

    What is smaller begins with a line of the cache: a vector that lies in two lines is loaded twice.
    NumPy asks the system for large pages from 4 MB on, but an array that begins anywhere begins and ends with hundreds
    of small ones, each of which costs microseconds when it is first written to. And a layer needs the arrays that the
    one before has just dropped: memory in which no array lies any more is given out again, its pages being there.
    """
    return _array(shape, dtype, zeros=False)


def in_one_piece(shapes: Sequence[tuple[int, ...]], dtype: npt.DTypeLike) -> list[Array]:
    """As `empty`, for several arrays that lie one behind the other, each beginning with a line of the cache."""
    line = LINE // np.dtype(dtype).itemsize
    starts = [0, *accumulate(-(-math.prod(shape) // line) * line for shape in shapes)]
    whole = empty((starts[-1],), dtype)
    return [
        whole[first : first + math.prod(shape)].reshape(shape) for shape, first in zip(shapes, starts[:-1], strict=True)
    ]


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As ``numpy.zeros``, in the same way."""
    return _array(shape, dtype, zeros=True)


def scattered(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As ``numpy.zeros``, in small pages: of an array that is written to here and there, only those places take memory.

    ``MemoryError`` where the system has no such addresses.
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
    dtype, fresh = np.dtype(dtype), np.zeros if zeros else np.empty
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE // 2:
        beginning, again, memory = LINE, None, fresh(size + LINE, np.uint8)
    else:
        ample = -(-size // LARGE) * LARGE
        total = (ample if ample - size <= LARGE // 4 else size) + LARGE
        beginning, again = LARGE, _take(total)
        memory = np.asarray(_Lent(fresh(total, np.uint8) if again is None else again))
    first = -memory.ctypes.data % beginning
    array = memory[first : first + size].view(dtype).reshape(shape)
    if zeros and again is not None:
        array.fill(0)
    return array


_waiting: list[Array] = []
_sizes = [0, 0]  # what `reusing` asks for
_changing = Lock()


class _Lent:
    """Memory while arrays lie in it: they refer to this, and when the last of them goes, so does this."""

    def __init__(self, memory: Array) -> None:
        self.memory, self.__array_interface__ = memory, memory.__array_interface__

    def __del__(self) -> None:
        # Python may come here at any moment, in the midst of `_take` too: then the memory is simply dropped.
        limit = max(KEPT, *_sizes)
        if self.memory.nbytes <= limit // 2 and _changing.acquire(blocking=False):
            _waiting.append(self.memory)
            while sum(memory.nbytes for memory in _waiting) > limit:
                del _waiting[0]
            _changing.release()


@contextmanager
def reusing(size: int) -> Iterator[None]:
    """Within, up to `size` bytes of memory in which no array lies any more wait for the next array, if that is more.

    A training step needs the arrays that the one before has dropped; the system would clear all their pages again.
    """
    _sizes.append(size)
    try:
        yield
    finally:
        with _changing:
            _sizes.remove(size)
            while sum(memory.nbytes for memory in _waiting) > max(KEPT, *_sizes):
                del _waiting[0]


def give_back() -> None:
    """Give back the memory that waits for the next array: for who has just dropped what it won't make again."""
    with _changing:
        _waiting.clear()


def _take(total: int) -> Array | None:
    """Memory of so many bytes that waits, or None."""
    with _changing:
        for number in reversed(range(len(_waiting))):
            if _waiting[number].nbytes == total:
                return _waiting.pop(number)
    return None

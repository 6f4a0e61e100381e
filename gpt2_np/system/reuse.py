"""Freed memory that waits for the next array of its size.

The system clears memory before it hands it out, which takes longer than many an operation on it: on a virtual machine,
where the host has to find it first, half of the time of a captured run. Up to `REUSABLE_BYTES` wait for the next layer,
which needs arrays of the same sizes. More waits where `reusing` asks for it, and between runs inside `retaining`: as
much as such a run held at once. That much is marked for the system (``MADV_FREE``), which takes it when it is short of
memory; where it can't be marked, it goes back.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

Array = np.ndarray
REUSABLE_BYTES = 1 << 27  # bytes that wait at most, unless more is asked for
RUNS = 8  # the largest of the last runs says how much is retained
ADAPTING = 31 << 20  # glibc adapts its thresholds to the largest freed block of up to 32 MiB


class Pool:
    """What waits, the oldest first, and how much is in use."""

    def __init__(self) -> None:
        self.waiting: list[Array] = []
        self.bytes = 0  # of what waits
        self.in_use, self.most = 0, 0  # bytes that arrays lie in, and the most of them since a run began
        self.missed: deque[int] = deque()  # bytes that were freed while another thread changed this
        self.asked = [0]  # sizes that `reusing` asks for
        self.runs = deque([0], RUNS)  # bytes that the last runs held at once
        self.changing = Lock()

    def __repr__(self) -> str:
        return f"Pool({self.bytes >> 20} MiB waiting, {self.in_use >> 20} MiB in use)"

    def take(self, size: int) -> Array | None:
        """Return memory of this size that waits, or None. Either way so much more is in use."""
        with self.changing:
            while self.missed:
                self.in_use -= self.missed.popleft()
            self.in_use += size
            self.most = max(self.most, self.in_use)
            for number in reversed(range(len(self.waiting))):
                if self.waiting[number].nbytes == size:
                    self.bytes -= size
                    return self.waiting.pop(number)
        return None

    def free(self, memory: Array) -> None:
        """Keep memory that nothing uses any more, or let it go.

        Python may call this at any moment, even inside `take`. The lock is taken then, and the memory goes.
        """
        if not self.changing.acquire(blocking=False):
            self.missed.append(memory.nbytes)
            return
        try:
            self.in_use -= memory.nbytes
            limit = self.usual()
            fits = memory.nbytes <= limit // 2
            if self.bytes + memory.nbytes > limit and max(self.runs) > limit and marked(memory):
                limit = max(self.runs)
                fits = memory.nbytes <= limit
            if fits:
                self.waiting.append(memory)
                self.bytes += memory.nbytes
                self.trim(limit)
        finally:
            self.changing.release()

    def usual(self) -> int:
        """Return how many bytes may wait without being marked."""
        return max(REUSABLE_BYTES, *self.asked)

    def trim(self, limit: int) -> None:
        """Let the oldest go, until no more than this waits."""
        while self.bytes > limit:
            self.bytes -= self.waiting.pop(0).nbytes

    def clear(self) -> None:
        """Let everything go."""
        with self.changing:
            self.trim(0)


POOL = Pool()


def marked(memory: Array) -> bool:
    """Tell the system that it may take this memory instead of swapping, and return whether it understood.

    Until it does, or until something is written there, the memory is what it was.
    """
    pages = memory.base.obj if isinstance(memory.base, memoryview) else memory.base
    if not isinstance(pages, mmap.mmap) or not hasattr(mmap, "MADV_FREE"):
        return False
    try:
        pages.madvise(mmap.MADV_FREE)
    except OSError:  # Linux before 4.5
        return False
    return True


@contextmanager
def reusing(size: int) -> Iterator[None]:
    """Inside the block, keep up to `size` bytes of freed memory for later arrays, if that is more than usual.

    A training step needs the arrays that the step before has freed; the system would have to clear all their pages
    again.
    """
    POOL.asked.append(size)
    np.empty(ADAPTING, np.uint8)  # glibc then keeps smaller blocks that are freed, which it gives back at first
    try:
        yield
    finally:
        with POOL.changing:
            POOL.asked.remove(size)
            POOL.trim(POOL.usual())  # what waited here wasn't marked


@contextmanager
def retaining() -> Iterator[None]:
    """A run, behind which as much freed memory is retained as it held at once, since the next run needs the same."""
    with POOL.changing:
        before, outer = POOL.in_use, POOL.most
        POOL.most = before
    try:
        yield
    finally:
        with POOL.changing:
            POOL.runs.append(POOL.most - before)
            POOL.most = max(outer, POOL.most)
            POOL.trim(max(POOL.usual(), *POOL.runs))


def give_back() -> None:
    """Give back the memory that waits for the next array: for who has just dropped what it won't make again."""
    POOL.clear()

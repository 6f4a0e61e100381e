"""Work on many positions at once, on a pool of Python threads, each of which uses one BLAS thread.

Decoding runs on Numba's thread pool, whose threads spin at a barrier; OpenBLAS's own pool spins too, and the two would
take the cores from each other. So BLAS is called from these Python threads, which sleep when idle.

`launch` respects two limits of Numba's pool: GNU OpenMP ends a forked process that uses it, and the "workqueue" layer
(Numba's choice where there is neither OpenMP nor TBB) ends a process in which two threads use it at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

import numba

from ...system.threads import Piece, evenly, on_threads, one_blas_thread


def launch(kernel: Callable[..., object], *arguments: Any) -> None:
    """Call a kernel that uses Numba's threads: with one thread in a forked process, one call at a time on
    "workqueue".
    """
    if _forked:
        numba.set_num_threads(1)
    with _turn():
        kernel(*arguments)


_forked: list[int] = []  # the process id, if the process was forked after this module was loaded


def _after_fork() -> None:
    _forked[:] = [os.getpid()]
    _turn.cache_clear()  # another thread of the parent may have held the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=1)
def _turn() -> AbstractContextManager[object]:
    numba.get_num_threads()  # chooses the layer, where nothing has yet
    layer = numba.threading_layer()  # type: ignore[attr-defined]  # numba has it, but doesn't list it
    return Lock() if layer == "workqueue" else nullcontext()


def threads() -> int:
    """Return how many threads Numba would use."""
    return 1 if _forked else numba.get_num_threads()


def in_threads(work: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
    """Run ``work(piece)`` for every piece, on as many threads as Numba would use, with one BLAS thread in each."""
    if len(pieces) == 1:
        work(pieces[0])
        return
    with one_blas_thread():
        on_threads(work, pieces, threads())


def slices(rows: int, least: int = 32) -> list[slice]:
    """Divide `rows` rows into equal slices, one per thread, of at least `least` rows each."""
    pieces = max(1, min(threads(), rows // least))
    return evenly(rows, pieces)

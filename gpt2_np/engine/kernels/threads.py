"""Work on many positions at once, on a pool of Python threads, each of which uses one BLAS thread.

Kernels run on Numba's thread pool, whose threads spin at a barrier; OpenBLAS's own pool spins too, and the two would
take the cores from each other. So BLAS is called from these Python threads, which sleep when idle.

`launch` respects two limits of Numba's pool: GNU OpenMP ends a forked process that uses it, and the "workqueue" layer
(Numba's choice where there is neither OpenMP nor TBB) ends a process in which two threads use it at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

from ...system.threads import Piece, evenly, on_threads, one_blas_thread
from . import numba_runtime

FEWEST = 1 << 16  # numbers that one core takes about as long for as another one takes to wake up


def launch(kernel: Callable[..., object], *arguments: Any, workers: int = sys.maxsize) -> None:
    """Call a kernel that uses Numba's threads, so many `workers` at most: one in a forked process, and one call at a
    time on "workqueue".
    """
    allowed = threads()
    if _forked or workers < allowed:
        limit(min(workers, allowed))
    try:
        with _turn() if workers > 1 else nullcontext():
            kernel(*arguments)
    finally:
        if workers < allowed:
            limit(allowed)


def over_rows(
    serial: Callable[..., object], parallel: Callable[..., object], x: Any, *arguments: Any, workers: int = sys.maxsize
) -> None:
    """Run a kernel over x and other arrays: `parallel` where x is large enough to wake other threads, else `serial`."""
    if x.size <= FEWEST or min(workers, threads()) == 1:
        serial(x, *arguments)
    else:
        launch(parallel, x, *arguments, workers=workers)


def limit(number: int) -> None:
    """Let the calling thread's kernels use so many threads, or all that were started if these are fewer."""
    if numba_runtime.running:
        numba_runtime.limit(min(number, numba_runtime.started()))
    elif "numba" in sys.modules:
        import numba

        started: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # it is set when it is loaded
        numba.set_num_threads(min(number, started))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(number)


_forked: list[int] = []  # the process id, if the process was forked after this module was loaded


def _after_fork() -> None:
    _forked[:] = [os.getpid()]
    _turn.cache_clear()  # another thread of the parent may have held the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=1)
def _turn() -> AbstractContextManager[object]:
    return Lock() if layer() == "workqueue" else nullcontext()


def layer() -> str:
    """Return the name of Numba's threading layer, which is chosen here where nothing has chosen it yet."""
    if numba_runtime.running:
        return numba_runtime.running[0]
    import numba

    numba.get_num_threads()
    name: str = numba.threading_layer()  # type: ignore[attr-defined]  # numba has it, but doesn't list it
    return name


def threads() -> int:
    """Return how many threads Numba would use."""
    return 1 if _forked else _counter()()


@lru_cache(maxsize=1)
def _counter() -> Callable[[], int]:
    """Return the layer's own function, once its threads run: Numba's first makes sure that they do, each time."""
    name = layer()
    if name in numba_runtime.LAYERS:
        return numba_runtime.counter(name)
    import numba

    return numba.get_num_threads


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

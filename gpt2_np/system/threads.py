"""The thread pool for NumPy's work, and BLAS, which has threads of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import lru_cache
from itertools import pairwise
from operator import length_hint
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
ALONE = sys.platform in ("emscripten", "wasi")  # WebAssembly, where a process can't start threads


def on_threads(work: Callable[[Piece], object], pieces: Iterable[Piece], threads: int) -> None:
    """Call ``work(piece)`` for every piece, on a number of threads. NumPy and the kernels release the GIL.

    One of the threads is the caller's own, which begins while the others wake up. So work that is itself divided may be
    given to threads in turn: where all others are busy, the caller does all of it.
    """
    remaining = iter(list(pieces))  # a list's iterator may be shared by threads

    def share() -> None:
        try:
            for piece in remaining:
                work(piece)
        except BaseException:
            for _ in remaining:  # nobody begins another piece
                pass
            raise

    here = copy_context()  # carries NumPy's errstate
    others = 0 if ALONE else min(threads, length_hint(remaining)) - 1
    started = [_pool(threads, os.getpid()).submit(here.copy().run, share) for _ in range(others)]
    try:
        share()
    finally:
        running = [one for one in started if not one.cancel()]
        errors = [one.exception() for one in running]
    for error in errors:
        if error is not None:
            raise error


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def evenly(count: int, pieces: int) -> list[slice]:
    """Divide `count` items into a number of slices of about equal size."""
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


def blas_threads() -> int:
    """Return how many threads BLAS may use; without threadpoolctl, what the environment says, or all cores."""
    known = _known.get()
    if known:
        return known
    found = _blas()
    if found is not None and found.lib_controllers:
        return max(library.num_threads for library in found.lib_controllers)
    said = next((os.environ[name] for name in LIMITS if os.environ.get(name, "").isdecimal()), "0")
    return int(said) or os.cpu_count() or 1


@contextmanager
def counted_once() -> Iterator[None]:
    """Let `blas_threads` return, inside the block, what it returns now: to ask BLAS takes microseconds each time."""
    before = _known.set(blas_threads())
    try:
        yield
    finally:
        _known.reset(before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Make BLAS work in the calling thread, inside the block. Without threadpoolctl nothing changes."""
    found = _blas()
    if found is None:
        yield
        return
    before = _known.set(1)
    try:
        with found.limit(limits=1):
            yield
    finally:
        _known.reset(before)


_known: ContextVar[int] = ContextVar("threads of BLAS", default=0)  # 0: it is to be asked

LIMITS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController | None:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return this process's threads: a forked process doesn't inherit its parent's."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, thread_name_prefix="gpt2_np")

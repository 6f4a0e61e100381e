"""The threads that NumPy's work is divided over; and BLAS, the library of matrix products, which has its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")


def on_threads(work: Callable[[Piece], object], pieces: Iterable[Piece], threads: int) -> None:
    """Call ``work(piece)`` for every piece, on so many threads. NumPy and the kernels let go of Python's lock."""
    here = copy_context()  # NumPy's errstate among it
    for _ in _pool(threads, os.getpid()).map(lambda piece: here.copy().run(work, piece), pieces):
        pass


def evenly(count: int, pieces: int) -> list[slice]:
    """`count` things in so many pieces of about equal size."""
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


@lru_cache(maxsize=1)
def blas() -> ThreadpoolController:
    """BLAS's own threads: how many there are, and their limit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process: a forked one has none of its parent's."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, thread_name_prefix="gpt2_np")

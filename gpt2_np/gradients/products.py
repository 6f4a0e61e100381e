"""Matrix products in pieces on threads, each piece by one thread of BLAS.

OpenBLAS's own threads wait for each other by spinning: where another program holds one of the cores, or where what
comes between two products is short, they spend more of the processors' time than the product does (twice as much was
measured on two shared cores). These threads sleep when idle, and pieces don't depend on how many threads there are, so
neither do the bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.threaded import CACHED, threads
from ..system.threads import evenly, on_threads, one_blas_thread

Array = np.ndarray
PIECE = 768  # rows or columns of the result, about


def product(a: Array, b: Array, out: Array, finish: Callable[[slice, slice], object] | None = None) -> Array:
    """a @ b into `out`, which is returned: (R, inputs), (inputs, C) → (R, C).

    It is worked out some rows or some columns at a time, whichever are more; `finish` is called with the rows and
    columns of each piece as soon as it is there.
    """
    R, C = out.shape
    by_row = R > C
    whole = slice(None)
    count = max(R, C)
    pieces = 1 if out.size * a.shape[1] <= 64 * CACHED else max(1, 2 * round(count / (2 * PIECE)))

    def work(some: slice) -> None:
        if by_row:
            np.matmul(a[some], b, out=out[some])
        else:
            np.matmul(a, b[:, some], out=out[:, some])
        if finish is not None:
            finish(*((some, whole) if by_row else (whole, some)))

    workers = threads()
    with one_blas_thread():
        if pieces == 1 or workers == 1:
            for some in evenly(count, pieces):
                work(some)
        else:
            on_threads(work, evenly(count, pieces), workers)
    return out

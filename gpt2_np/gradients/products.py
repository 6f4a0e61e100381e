"""Matrix products divided into pieces that run on threads, each piece on one thread of BLAS.

OpenBLAS's own threads spin while they wait for each other at a barrier: where another program holds a core, or where
little work lies between two products, they take more processor time than the product itself (twice as much was measured
on two shared cores). The threads here sleep when idle. The pieces don't depend on the number of threads, so neither do
the bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.threaded import CACHED, threads
from ..system.threads import evenly, on_threads, one_blas_thread

Array = np.ndarray
Product = Callable[[Array, Array, Array, "Array | None"], Array]  # the signature of `product`
PIECE = 768  # rows or columns of the result, about


def product(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute a @ b, plus the bias, into `out`, and return it: (R, inputs), (inputs, C), (C,) → (R, C).

    It is computed some rows or some columns at a time, whichever are more.
    """
    R, C = out.shape
    by_row = R > C
    whole = slice(None)
    count = max(R, C)
    pieces = 1 if out.size * a.shape[1] <= 64 * CACHED else max(2, 2 * round(count / (2 * PIECE)))

    def work(some: slice) -> None:
        rows, columns = (some, whole) if by_row else (whole, some)
        np.matmul(a[rows], b[:, columns], out=out[rows, columns])
        if bias is not None:
            out[rows, columns] += bias[columns]

    workers = threads()
    with one_blas_thread():
        if pieces == 1 or workers == 1:
            for some in evenly(count, pieces):
                work(some)
        else:
            on_threads(work, evenly(count, pieces), workers)
    return out

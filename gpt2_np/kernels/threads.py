"""Many positions at once: pieces of work on a pool of Python threads, with BLAS kept to one thread inside each.

Decoding runs on Numba's pool, which waits by spinning; OpenBLAS's own pool spins too, and the two would steal the
cores from each other. So where BLAS works, it works in these threads, which sleep when idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numba

from ..pool import Piece, blas, evenly, on_threads


def in_threads(work: Callable[[Piece], object], pieces: Sequence[Piece]) -> None:
    """Run ``work(piece)`` for every piece, on as many threads as Numba would use; BLAS has one in each."""
    if len(pieces) == 1:
        work(pieces[0])
        return
    with blas().limit(limits=1):
        on_threads(work, pieces, numba.get_num_threads())


def slices(rows: int, least: int = 32) -> list[slice]:
    """`rows` rows in equal pieces, one a thread, of at least `least` rows each."""
    pieces = max(1, min(numba.get_num_threads(), rows // least))
    return evenly(rows, pieces)


def portions(outputs: int, size: int) -> list[slice]:
    """`outputs` outputs in an even number of about equal pieces of about `size`, whatever the number of threads.

    BLAS sums in another order where a piece has another shape, so the pieces must not depend on the machine.
    """
    pieces = max(1, min(outputs, 2 * max(1, round(outputs / (2 * size)))))
    return evenly(outputs, pieces)

"""`products` by AMX's tiles, where the processor has them: the same signature, on threads that sleep when idle.

In float32 the tiles are faster than BLAS, and their sums more exact (`kernels.float32_tiles`). Everything else, and
products too small to be packed, are left to `products`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as combinations

import numpy as np

from ..engine.kernels.amx import HALVES, ROWS
from ..engine.kernels.compiled import PLAIN
from ..engine.threaded import CACHED, threads
from ..system.memory import empty
from ..system.threads import evenly, on_threads
from . import products

Array = np.ndarray
PACKED = 64  # packing a number takes about as long as so many multiplications and additions
PIECES = 2  # pieces for each thread, at least, in case another program holds one of the cores


def product(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `products.product`. Its bits don't depend on the number of threads."""
    (R, C), K = out.shape, a.shape[1]
    small = min(R, C, K) < ROWS or R * C * K <= 8 * CACHED
    if small or not HALVES or PLAIN or any(one.dtype != np.float32 for one in (a, b, out)):
        return products.product(a, b, out, bias)
    from ..engine.kernels.float32_tiles import SCRATCH, blocks, float32_product

    left, down = _laid_out(a)
    right, across = _laid_out(b)
    terms, most = blocks(R, K, C)
    biases = np.zeros(C, np.float32) if bias is None else bias

    def work(piece: tuple[slice, slice]) -> None:
        rows, columns = piece
        places = (rows.start, rows.stop, columns.start, columns.stop)
        float32_product(left, down, right, not across, biases, terms, empty((SCRATCH,), np.uint16), out, *places)

    workers = threads()
    on_threads(work, _pieces(R, C, most, workers), workers)
    return out


def _laid_out(x: Array) -> tuple[Array, bool]:
    """Return a matrix that is contiguous row by row, and whether it is the transposed one."""
    return (x.T, True) if x.T.flags.c_contiguous and not x.flags.c_contiguous else (np.ascontiguousarray(x), False)


@lru_cache(maxsize=64)
def _pieces(R: int, C: int, most: int, workers: int) -> tuple[tuple[slice, slice], ...]:
    """Divide R × C results into pieces of at most `most` rows or columns, so that all threads take the least time."""

    def cost(split: tuple[int, int]) -> float:
        rows, columns = R / split[0], C / split[1]
        return -(-split[0] * split[1] // workers) * (rows * columns + PACKED * (rows + columns))

    few = range(2 * workers + 1)
    across, down = ({1 + n for n in few} | {-(-count // most) + n for n in few} for count in (R, C))
    some = [(i, j) for i, j in combinations(across, down) if min(R / i, C / j) <= most]
    enough = [split for split in some if workers == 1 or split[0] * split[1] >= PIECES * workers]
    rows, columns = min(enough, key=cost)
    return tuple((one, other) for one in _multiples(R, rows) for other in _multiples(C, columns))


def _multiples(count: int, pieces: int) -> list[slice]:
    """Divide `count` rows or columns into slices that start at multiples of two tiles' lines."""
    whole = 2 * ROWS
    some = evenly(-(-count // whole), min(pieces, -(-count // whole)))
    return [slice(one.start * whole, min(one.stop * whole, count)) for one in some]

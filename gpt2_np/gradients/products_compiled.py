"""`products` compiled, where the processor has AMX or AVX-512: the same signature, on threads that sleep when idle.

In float32 AMX's tiles are faster than BLAS, and their sums more exact (`kernels.float32_tiles`). AVX-512's vectors
compute as fast as BLAS's, and a result is written once and a matrix read once (`kernels.float32_vectors`). Everything
else, and products too small to be packed, are left to `products`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as combinations

import numpy as np

from ..engine.kernels.amx import HALVES, ROWS
from ..engine.kernels.compiled import PLAIN
from ..engine.kernels.simd import AVX512, LANES
from ..engine.threaded import CACHED, threads
from ..system.memory import empty
from ..system.threads import evenly, on_threads
from ..weights.panels import TILE
from . import products

Array = np.ndarray
Piece = tuple[slice, slice]  # rows and columns of a result
PACKED = {"tiles": 64, "vectors": 16}  # packing a number takes about as long as so many multiply-adds
PIECES = 2  # pieces for each thread, at least, in case another program holds one of the cores
MOST = 512  # rows of a piece that are transposed
NO_BIAS = np.empty(0, np.float32)


def product(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `products.product`. Its bits don't depend on the number of threads."""
    (R, C), K = out.shape, a.shape[1]
    small = min(R, C, K) < ROWS or R * C * K <= 8 * CACHED
    if small or not AVX512 or PLAIN or any(one.dtype != np.float32 for one in (a, b, out)):
        return products.product(a, b, out, bias)
    return by_tiles(a, b, out, bias) if HALVES else by_vectors(a, b, out, bias)


def by_tiles(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `product` by AMX."""
    from ..engine.kernels.float32_tiles import SCRATCH, blocks, float32_product

    (R, C), K = out.shape, a.shape[1]
    left, down = _laid_out(a)
    right, across = _laid_out(b)
    terms, most = blocks(R, K, C)
    biases = np.zeros(C, np.float32) if bias is None else bias

    def work(piece: Piece) -> None:
        rows, columns = piece
        places = (rows.start, rows.stop, columns.start, columns.stop)
        float32_product(left, down, right, not across, biases, terms, empty((SCRATCH,), np.uint16), out, *places)

    workers = threads()
    on_threads(work, _pieces(R, C, most, workers), workers)
    return out


def by_vectors(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `product` by AVX-512."""
    from ..engine.kernels.float32_vectors import float32_columns, transposed_rows

    (R, C), K = out.shape, a.shape[1]
    left, down = _laid_out(a)
    right, across = _laid_out(b)
    biases = NO_BIAS if bias is None else bias

    def work(piece: Piece) -> None:
        rows, columns = piece
        if down:
            # Rows that lie a multiple of 4 KB apart would displace each other from the first-level cache.
            x = empty((rows.stop - rows.start, K + LANES), np.float32)
            transposed_rows(left, rows.start, rows.stop, x)
        else:
            x = left[rows]
        float32_columns(x, right, not across, biases, out[rows], columns.start, columns.stop)

    workers = threads()
    on_threads(work, _pieces(R, C, MOST if down else R, workers, "vectors", TILE), workers)
    return out


def _laid_out(x: Array) -> tuple[Array, bool]:
    """Return a matrix that is contiguous row by row, and whether it is the transposed one."""
    return (x.T, True) if x.T.flags.c_contiguous and not x.flags.c_contiguous else (np.ascontiguousarray(x), False)


@lru_cache(maxsize=64)
def _pieces(R: int, C: int, most: int, workers: int, by: str = "tiles", whole: int = 2 * ROWS) -> tuple[Piece, ...]:
    """Divide R × C results into pieces, so that all threads take the least time.

    They start at multiples of `whole`, and have at most `most` rows; for tiles, at most so many rows or columns.
    """

    def cost(split: tuple[int, int]) -> float:
        rows, columns = R / split[0], C / split[1]
        return -(-split[0] * split[1] // workers) * (rows * columns + PACKED[by] * (rows + columns))

    few = range(2 * workers + 1)
    across, down = ({1 + n for n in few} | {-(-count // most) + n for n in few} for count in (R, C))
    some = [(i, j) for i, j in combinations(across, down) if (min(R / i, C / j) if by == "tiles" else R / i) <= most]
    enough = [split for split in some if workers == 1 or split[0] * split[1] >= PIECES * workers]
    rows, columns = min(enough, key=cost)
    return tuple((one, other) for one in _multiples(R, rows, whole) for other in _multiples(C, columns, whole))


def _multiples(count: int, pieces: int, whole: int) -> list[slice]:
    """Divide `count` rows or columns into slices that start at multiples of `whole`."""
    some = evenly(-(-count // whole), min(pieces, -(-count // whole)))
    return [slice(one.start * whole, min(one.stop * whole, count)) for one in some]

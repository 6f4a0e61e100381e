"""`products` compiled, where the processor has AMX or AVX-512: the same signature, on threads that sleep when idle.

In float32 AMX's tiles are faster than BLAS, and their sums more exact (`kernels.float32_tiles`). AVX-512's vectors
compute as fast as BLAS's, and a result is written once and a matrix read once (`kernels.float32_vectors`). Everything
else, and products too small to be packed, are left to `products`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
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
PIECES = 2  # pieces for each thread, at least, in case another program holds one of the cores
MOST = 512  # rows of a piece that are transposed
NO_LIMIT = sys.maxsize
NO_BIAS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Division:
    """How a kernel's result may be divided into pieces.

    They start at multiples of ``whole`` rows and columns, have at most ``rows`` rows, and at most ``either`` rows or
    columns. Packing a number takes about as long as ``packed`` multiply-adds.
    """

    whole: int
    packed: int
    rows: int = NO_LIMIT
    either: int = NO_LIMIT

    def allows(self, rows: float, columns: float) -> bool:
        """Tell whether a piece may be so large."""
        return rows <= self.rows and min(rows, columns) <= self.either


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
    on_threads(work, _pieces(R, C, Division(2 * ROWS, packed=64, either=most), workers), workers)
    return out


def by_vectors(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `product` by AVX-512.

    A gradient of weights is the product of a transposed matrix. Where fewer numbers are transposed if the right matrix
    and the result are, so it is done.
    """
    from ..engine.kernels.float32_vectors import float32_columns, float32_columns_as_rows, transposed_rows

    (R, C), K = out.shape, a.shape[1]
    left, down = _laid_out(a)
    right, across = _laid_out(b)
    biases = NO_BIAS if bias is None else bias
    swapped = down and bias is None and (0 if across else K * C) + R * C < K * R
    if swapped:
        left, down, right, across, (R, C) = right, not across, left, False, (C, R)

    def work(piece: Piece) -> None:
        rows, columns = piece
        if down:
            # Rows that lie a multiple of 4 KB apart would displace each other from the first-level cache.
            x = empty((rows.stop - rows.start, K + LANES), np.float32)
            transposed_rows(left, rows.start, rows.stop, x)
        else:
            x = left[rows]
        if swapped:
            float32_columns_as_rows(x, right, True, out, rows.start, columns.start, columns.stop)
        else:
            float32_columns(x, right, not across, biases, out[rows], columns.start, columns.stop)

    workers = threads()
    division = Division(TILE, packed=16, rows=MOST if down else NO_LIMIT)
    on_threads(work, _pieces(R, C, division, workers), workers)
    return out


def _laid_out(x: Array) -> tuple[Array, bool]:
    """Return a matrix that is contiguous row by row, and whether it is the transposed one."""
    return (x.T, True) if x.T.flags.c_contiguous and not x.flags.c_contiguous else (np.ascontiguousarray(x), False)


@lru_cache(maxsize=64)
def _pieces(R: int, C: int, division: Division, workers: int) -> tuple[Piece, ...]:
    """Divide R × C results into pieces, so that all threads take the least time."""

    def cost(split: tuple[int, int]) -> float:
        rows, columns = R / split[0], C / split[1]
        return -(-split[0] * split[1] // workers) * (rows * columns + division.packed * (rows + columns))

    few, most = range(2 * workers + 1), min(division.rows, division.either)
    across, down = ({1 + n for n in few} | {-(-count // most) + n for n in few} for count in (R, C))
    some = [(i, j) for i, j in combinations(across, down) if division.allows(R / i, C / j)]
    enough = [split for split in some if workers == 1 or split[0] * split[1] >= PIECES * workers]
    rows, columns = min(enough, key=cost)
    return tuple(
        (one, other) for one in _multiples(R, rows, division.whole) for other in _multiples(C, columns, division.whole)
    )


def _multiples(count: int, pieces: int, whole: int) -> list[slice]:
    """Divide `count` rows or columns into slices that start at multiples of `whole`."""
    some = evenly(-(-count // whole), min(pieces, -(-count // whole)))
    return [slice(one.start * whole, min(one.stop * whole, count)) for one in some]

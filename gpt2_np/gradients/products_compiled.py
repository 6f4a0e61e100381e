"""`products` compiled, where the processor has AMX, AVX-512 or AVX2: the same signature, on Numba's threads.

In float32 AMX's tiles are faster than BLAS, and their sums more exact (`kernels.float32_tiles`). AVX-512's vectors
compute as fast as BLAS's, and a result is written once and a matrix read once (`kernels.float32_vectors`). AVX2's are
used unless all sides of a product are long: then BLAS is faster, which packs both matrices. Everything else, and
products too small to be packed, are left to `products`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as combinations

import numpy as np

from ..engine.kernels.amx import HALVES, ROWS
from ..engine.kernels.compiled import PLAIN
from ..engine.kernels.simd import AVX2, AVX512
from ..engine.kernels.threads import launch
from ..engine.threaded import CACHED, threads
from ..system.memory import empty
from ..system.threads import evenly
from ..weights.panels import TILE
from . import products

Array = np.ndarray
Piece = tuple[slice, slice]  # rows and columns of a result
VECTORS = (AVX512 or AVX2) and not PLAIN  # with SSE2 BLAS is faster
PIECES = 2  # pieces for each thread, at least, in case another program holds one of the cores
LONG = 1 << 28  # multiply-adds that take about a millisecond, so that this may happen
SIDE = 512  # the longest that AVX2's shortest side may be
MOST = 512  # rows of a piece that are transposed
NO_LIMIT = sys.maxsize
NO_BIAS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Division:
    """How a kernel's result may be divided into pieces.

    They start at multiples of ``whole`` rows and columns, have at most ``rows`` rows, and at most ``either`` rows or
    columns. There are at least so many ``pieces`` for each thread. Packing a number takes about as long as ``packed``
    multiply-adds.
    """

    whole: int
    packed: int
    pieces: int = PIECES
    rows: int = NO_LIMIT
    either: int = NO_LIMIT

    def allows(self, rows: float, columns: float) -> bool:
        """Tell whether a piece may be so large."""
        return rows <= self.rows and min(rows, columns) <= self.either


def product(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `products.product`. Its bits don't depend on the number of threads."""
    (R, C), K = out.shape, a.shape[1]
    small = min(R, C, K) < ROWS or R * C * K <= 8 * CACHED
    large = min(R, C, K) > SIDE and not AVX512
    if small or large or not VECTORS or any(one.dtype != np.float32 for one in (a, b, out)):
        return products.product(a, b, out, bias)
    return by_tiles(a, b, out, bias) if HALVES else by_vectors(a, b, out, bias)


def by_tiles(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `product` by AMX."""
    from ..engine.kernels.float32_tiles import SCRATCH, blocks, float32_tiles

    (R, C), K = out.shape, a.shape[1]
    left, down = _laid_out(a)
    right, across = _laid_out(b)
    terms, most = blocks(R, K, C)
    biases = np.zeros(C, np.float32) if bias is None else bias
    workers = threads()
    pieces = _table(R, C, Division(2 * ROWS, 64, _least(R * C * K), either=most), workers)
    scratch = empty((workers, SCRATCH), np.uint16)
    launch(float32_tiles, left, down, right, not across, biases, terms, pieces, scratch, out, workers=workers)
    return out


def by_vectors(a: Array, b: Array, out: Array, bias: Array | None = None) -> Array:
    """Compute `product` by AVX-512 or AVX2.

    A gradient of weights is the product of a transposed matrix. Where fewer numbers are transposed if the right matrix
    and the result are, so it is done.
    """
    from ..engine.kernels.float32_vectors import float32_pieces

    (R, C), K = out.shape, a.shape[1]
    left, down = _laid_out(a)
    right, across = _laid_out(b)
    biases = NO_BIAS if bias is None else bias
    swapped = down and bias is None and (0 if across else K * C) + R * C < K * R
    if swapped:
        left, down, right, across, (R, C) = right, not across, left, False, (C, R)
    workers = threads()
    pieces = _table(R, C, Division(TILE, 16, _least(R * C * K), rows=MOST if down else NO_LIMIT), workers)
    launch(float32_pieces, left, down, right, not across, biases, swapped, pieces, out, workers=workers)
    return out


def _laid_out(x: Array) -> tuple[Array, bool]:
    """Return a matrix that is contiguous row by row, and whether it is the transposed one."""
    return (x.T, True) if x.T.flags.c_contiguous and not x.flags.c_contiguous else (np.ascontiguousarray(x), False)


@lru_cache(maxsize=64)
def _table(R: int, C: int, division: Division, workers: int) -> Array:
    """Return the first and last rows and columns of `_pieces`: (n, 4)."""
    pieces = _pieces(R, C, division, workers)
    return np.array([(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in pieces], np.int64)


def _pieces(R: int, C: int, division: Division, workers: int) -> list[Piece]:
    """Divide R × C results into pieces, so that all threads take the least time."""

    def cost(split: tuple[int, int]) -> float:
        rows, columns = (
            -(-count // (division.whole * n)) * division.whole for count, n in zip((R, C), split, strict=True)
        )
        return -(-split[0] * split[1] // workers) * (rows * columns + division.packed * (rows + columns))

    few, most = range(2 * workers + 1), min(division.rows, division.either)
    across, down = ({1 + n for n in few} | {-(-count // most) + n for n in few} for count in (R, C))
    some = [(i, j) for i, j in combinations(across, down) if division.allows(R / i, C / j)]
    enough = [split for split in some if workers == 1 or split[0] * split[1] >= division.pieces * workers]
    rows, columns = min(enough, key=cost)
    return [
        (one, other) for one in _multiples(R, rows, division.whole) for other in _multiples(C, columns, division.whole)
    ]


def _least(multiply_adds: int) -> int:
    """Return how many pieces each thread gets at least."""
    return PIECES if multiply_adds >= LONG else 1


def _multiples(count: int, pieces: int, whole: int) -> list[slice]:
    """Divide `count` rows or columns into slices that start at multiples of `whole`."""
    some = evenly(-(-count // whole), min(pieces, -(-count // whole)))
    return [slice(one.start * whole, min(one.stop * whole, count)) for one in some]

"""float32 matrices times few vectors: read the weights once, at the speed of memory.

Decoding reads every weight for each token, so all that matters is that memory streams. The (inputs, outputs) matrices
of the checkpoint are walked in blocks of whole rows, each block adding into sums of its own; the blocks' sums are then
added in a fixed order. Their number doesn't depend on the number of threads, nor a row's sums on the other rows: any
number of threads, and any company in the batch, gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .arithmetic import ORDERED, ORDERED_PARALLEL, SERIAL, matrix, out2, out3, vector
from .registers import LANES, Registers, address, ask_for, emits, further, load, multiply_add, repeat, store

Array = np.ndarray
BLOCKS = 8
ROWS, VECTORS = 4, 3  # a tile of sums: with what is added to them, they just fit into sixteen registers
WIDTH = VECTORS * LANES
DEPTH = 48  # so many inputs of a tile at a time: their weights stay in the first-level cache for all rows
AHEAD = 2 * WIDTH  # how many outputs ahead memory is asked for weights
SHARE, FURTHER = 64, 256  # the same for one row: so many sums at a time, so many outputs ahead

TILE = Registers(types.float32, ROWS * VECTORS)


def rows_with_room(R: int) -> int:
    """The rows of sums that `stream_rows` needs room for: whole tiles, but for a single one."""
    return 1 if R == 1 else -(-R // ROWS) * ROWS


# ---- several rows: tiles of sums in registers -----------------------------------------------------------------------


def no_sums() -> Any:
    """A tile of zeros."""
    return np.zeros((ROWS, WIDTH), np.float32)


@emits(no_sums, lambda: TILE)
def _no_sums(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return TILE.array(None)


def load_tile(sums: Array, r: int, f: int) -> Any:
    """The sums of ROWS rows and WIDTH outputs, from there on."""
    return sums[r : r + ROWS, f : f + WIDTH].copy()


@emits(load_tile, lambda sums, r, f: TILE)
def _load_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, r, f = arguments
    tile = TILE.array(None)
    for row in range(ROWS):
        where = address(context, builder, signature.args[0], sums, further(builder, r, row), f)
        for v in range(VECTORS):
            tile = builder.insert_value(tile, load(builder, where, TILE.vector, v * LANES), row * VECTORS + v)
    return tile


def store_tile(tile: Any, sums: Array, r: int, f: int) -> None:
    """Put them back."""
    sums[r : r + ROWS, f : f + WIDTH] = tile


@emits(store_tile, lambda tile, sums, r, f: types.void)
def _store_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    tile, sums, r, f = arguments
    for row in range(ROWS):
        where = address(context, builder, signature.args[1], sums, further(builder, r, row), f)
        for v in range(VECTORS):
            store(builder, builder.extract_value(tile, row * VECTORS + v), where, v * LANES)
    return context.get_dummy_value()


def add_outer(tile: Any, x: Array, r: int, i: int, weight: Array, j: int, f: int) -> Any:
    """Add an input of ROWS rows, ``x[r:, i]``, each times its weights, ``weight[j, f:]``."""
    return tile + x[r : r + ROWS, i, None] * weight[j, f : f + WIDTH]


@emits(add_outer, lambda tile, x, r, i, weight, j, f: TILE)
def _add_outer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    tile, x, r, i, weight, j, f = arguments
    where = address(context, builder, signature.args[4], weight, j, f)
    weights = [load(builder, where, TILE.vector, v * LANES) for v in range(VECTORS)]
    for row in range(ROWS):
        one = builder.load(address(context, builder, signature.args[1], x, further(builder, r, row), i))
        one = repeat(builder, one, TILE.vector)
        for v in range(VECTORS):
            n = row * VECTORS + v
            added = multiply_add(builder, one, weights[v], builder.extract_value(tile, n))
            tile = builder.insert_value(tile, added, n)
    return tile


def keep(packed: Array, i: int, weight: Array, j: int, f: int) -> None:
    """Copy a tile's weights for one input to where the other rows use them."""
    packed[i] = weight[j, f : f + WIDTH]


@emits(keep, lambda packed, i, weight, j, f: types.void)
def _keep(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    packed, i, weight, j, f = arguments
    near = address(context, builder, signature.args[0], packed, i, f.type(0))
    where = address(context, builder, signature.args[2], weight, j, f)
    for v in range(VECTORS):
        store(builder, load(builder, where, TILE.vector, v * LANES), near, v * LANES)
    return context.get_dummy_value()


def fetch(weight: Array, j: int, f: int) -> None:
    """Ask memory for a tile's weights for one input."""


@emits(fetch, lambda weight, j, f: types.void)
def _fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    weight, j, f = arguments
    where = address(context, builder, signature.args[0], weight, j, f)
    ask_for(builder, where, WIDTH)
    return context.get_dummy_value()


@numba.njit(void(matrix, matrix, types.int64, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def add_to_many(x: Array, weight: Array, start: int, end: int, sums: Array) -> None:
    """The products of the inputs from `start` to `end`, added up: (R, D), (D, F) → (R, F …). R is a whole tile's."""
    R, F = len(x), weight.shape[1]
    packed, whole = np.empty((DEPTH, WIDTH), np.float32), F // WIDTH * WIDTH
    for first in range(start, end, DEPTH):
        depth = min(end - first, DEPTH)
        for f in range(0, whole, WIDTH):
            for r in range(0, R, ROWS):
                # A share of them before each rows' turn, so that memory is busy while they compute.
                for i in range(r * depth // R, (r + ROWS) * depth // R):
                    fetch(weight, first + i, f + AHEAD)
                tile = no_sums() if first == start else load_tile(sums, r, f)
                if r == 0:
                    for i in range(depth):
                        keep(packed, i, weight, first + i, f)
                        tile = add_outer(tile, x, r, first + i, weight, first + i, f)
                else:
                    for i in range(depth):
                        tile = add_outer(tile, x, r, first + i, packed, i, 0)
                store_tile(tile, sums, r, f)
    for r in range(R):
        for f in range(whole, F):
            sums[r, f] = np.float32(0)
            for i in range(start, end):
                sums[r, f] += x[r, i] * weight[i, f]


@register_jitable
def padded(x: Array) -> Array:
    """x with rows of zeros behind it, up to a whole tile of rows."""
    if len(x) % ROWS == 0:
        return x
    out = np.zeros(((len(x) + ROWS - 1) // ROWS * ROWS, x.shape[1]), np.float32)
    out[: len(x)] = x
    return out


# ---- one row: eight inputs at a time --------------------------------------------------------------------------------


def add_eight(sums: Array, x: Array, weight: Array, i: int, f: int, j: int, g: int) -> None:
    """Add eight inputs, ``x[i:]``, each times its weights, ``weight[i:, f:]``, and ask for ``weight[j:, g:]``."""
    for k in range(8):
        sums[f : f + SHARE] += x[i + k] * weight[i + k, f : f + SHARE]


@emits(add_eight, lambda sums, x, weight, i, f, j, g: types.void)
def _add_eight(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    sums, x, weight, i, f, j, g = arguments
    where = address(context, builder, signature.args[0], sums, f)
    totals = [load(builder, where, TILE.vector, v * LANES) for v in range(SHARE // LANES)]
    for k in range(8):
        ahead = address(context, builder, signature.args[2], weight, further(builder, j, k), g)
        ask_for(builder, ahead, SHARE)
        one = builder.load(address(context, builder, signature.args[1], x, further(builder, i, k)))
        one = repeat(builder, one, TILE.vector)
        row = address(context, builder, signature.args[2], weight, further(builder, i, k), f)
        totals = [multiply_add(builder, one, load(builder, row, TILE.vector, v * LANES), total)
                  for v, total in enumerate(totals)]  # fmt: skip
    for v, total in enumerate(totals):
        store(builder, total, where, v * LANES)
    return context.get_dummy_value()


@register_jitable
def add_to_one(x: Array, weight: Array, start: int, end: int, sums: Array) -> None:
    """`add_to_many` for one row: its sums fit into the first-level cache, and the weights are read in their order."""
    F = weight.shape[1]
    sums[:F] = np.float32(0)
    eights, whole = start + (end - start) // 8 * 8, F // SHARE * SHARE
    for i in range(start, eights, 8):
        for f in range(0, whole, SHARE):
            ahead = (i, f + FURTHER) if f + FURTHER < whole else (i + 8, f + FURTHER - whole)
            add_eight(sums, x, weight, i, f, ahead[0], ahead[1])
    for i in range(start, end):
        for f in range(whole if i < eights else 0, F):
            sums[f] += x[i] * weight[i, f]


@numba.njit(void(out3, vector, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def gather(sums: Array, bias: Array, r: int, out: Array) -> None:
    """One row of the result: the blocks' sums in order, and the bias."""
    row = out[r]
    row[:] = np.float32(0)
    for block in range(len(sums)):
        mine = sums[block, r]
        for f in range(len(row)):
            row[f] += mine[f]
    for f in range(len(row)):
        row[f] += bias[f]


@numba.njit(void(matrix, matrix, vector, out3, out2), **ORDERED_PARALLEL)
def stream_rows(x: Array, weight: Array, bias: Array, sums: Array, out: Array) -> None:
    """x @ weight + bias into ``out``. (R, D), (D, F), (F,) → (R, F).

    ``sums`` is room to work in, (BLOCKS, `rows_with_room`, F …).
    """
    R, D = x.shape
    size = ((D + BLOCKS - 1) // BLOCKS + 7) // 8 * 8
    blocks = (D + size - 1) // size
    if R == 1:
        for block in prange(blocks):
            start = np.int64(block) * size
            add_to_one(x[0], weight, start, min(D, start + size), sums[block, 0])
        gather(sums[:blocks], bias, 0, out)
        return
    several = padded(x)
    for block in prange(blocks):
        start = np.int64(block) * size
        add_to_many(several, weight, start, min(D, start + size), sums[block])
    for r in prange(R):
        gather(sums[:blocks], bias, r, out)

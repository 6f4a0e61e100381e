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
from .registers import (
    LANES,
    LINE,
    WIDE,
    Registers,
    address,
    ask,
    ask_for,
    emits,
    further,
    load,
    multiply_add,
    repeat,
    store,
)

Array = np.ndarray
BLOCKS = 8
PIECE, NEAR = 128, 1024  # so many weights at a time, and so many ahead memory is asked for some of them

SINGLY = 8  # up to so many rows go one by one past weights in registers; more of them in tiles

INPUTS, SHARE = 4, 4 * LANES if WIDE else 2 * LANES  # so many inputs' weights for so many outputs are in registers
FURTHER = 1 << 14  # how many weights ahead, in the order that they lie in, memory is asked for them

ROWS, VECTORS = 8 if WIDE else 4, 3  # a tile of sums: with what is added to them, they just fit into the registers
WIDTH = VECTORS * LANES
DEPTH = 32  # so many inputs of a tile at a time: their weights stay in the first-level cache for all rows
AHEAD = 2 * WIDTH  # how many outputs ahead memory is asked for weights

WEIGHTS = Registers(types.float32, INPUTS * SHARE // LANES)
TILE = Registers(types.float32, ROWS * VECTORS)


def rows_with_room(R: int) -> int:
    """The rows of sums that `stream_rows` needs room for: whole tiles, where it works in tiles."""
    return R if R <= SINGLY else -(-R // ROWS) * ROWS


# ---- one row: weights as they lie -----------------------------------------------------------------------------------


@numba.njit(void(matrix, matrix, types.int64, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def add_to_one(x: Array, weight: Array, start: int, end: int, sums: Array) -> None:
    """The products of the inputs from `start` to `end`, added up, for a single row: (1, D), (D, F) → (1, F …).

    Each weight is used once, so all depends on memory: it is fastest where the processor sees one piece go by from end
    to end. It finds out by itself what comes next; being asked for a line of four, not far ahead, it doesn't fall back.
    """
    F, mine = weight.shape[1], sums[0]
    whole = F // PIECE * PIECE
    mine[:F] = np.float32(0)
    for i in range(start, end):
        for f in range(0, whole, PIECE):
            for d in range(f, f + PIECE, 4 * LINE):
                ask(weight, i, d + NEAR)
            for d in range(f, f + PIECE):
                mine[d] += x[0, i] * weight[i, d]
        for d in range(whole, F):
            mine[d] += x[0, i] * weight[i, d]


# ---- few rows: weights in registers, rows one by one ----------------------------------------------------------------


def load_weights(weight: Array, i: int, f: int) -> Any:
    """INPUTS inputs' weights for SHARE outputs, from there on."""
    return weight[i : i + INPUTS, f : f + SHARE].copy()


@emits(load_weights, lambda weight, i, f: WEIGHTS)
def _load_weights(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    weight, i, f = arguments
    weights, vectors = WEIGHTS.array(None), SHARE // LANES
    for k in range(INPUTS):
        where = address(context, builder, signature.args[0], weight, further(builder, i, k), f)
        for v in range(vectors):
            weights = builder.insert_value(weights, load(builder, where, WEIGHTS.vector, v * LANES), k * vectors + v)
    return weights


def add_inputs(weights: Any, x: Array, r: int, i: int, sums: Array, f: int) -> None:
    """Add a row's inputs, ``x[r, i:]``, each times its weights, to ``sums[r, f:]``."""
    for k in range(INPUTS):
        sums[r, f : f + SHARE] += x[r, i + k] * weights[k]


@emits(add_inputs, lambda weights, x, r, i, sums, f: types.void)
def _add_inputs(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    weights, x, r, i, sums, f = arguments
    where, vectors = address(context, builder, signature.args[4], sums, r, f), SHARE // LANES
    totals = [load(builder, where, WEIGHTS.vector, v * LANES) for v in range(vectors)]
    for k in range(INPUTS):
        one = builder.load(address(context, builder, signature.args[1], x, r, further(builder, i, k)))
        one = repeat(builder, one, WEIGHTS.vector)
        totals = [multiply_add(builder, one, builder.extract_value(weights, k * vectors + v), total)
                  for v, total in enumerate(totals)]  # fmt: skip
    for v, total in enumerate(totals):
        store(builder, total, where, v * LANES)
    return context.get_dummy_value()


def ask_ahead(weight: Array, ahead: int) -> None:
    """Ask memory for as many weights as `load_weights` takes, ``weight.flat[ahead:]``."""


@emits(ask_ahead, lambda weight, ahead: types.void)
def _ask_ahead(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    weight, ahead = arguments
    ask_for(builder, address(context, builder, signature.args[0], weight, ahead.type(0), ahead), INPUTS * SHARE)
    return context.get_dummy_value()


@numba.njit(void(matrix, matrix, types.int64, types.int64, out2), **SERIAL | {"fastmath": ORDERED})
def add_to_few(x: Array, weight: Array, start: int, end: int, sums: Array) -> None:
    """As `add_to_one`, for several rows: (R, D), (D, F) → (R, F …).

    The weights are read once, in about the order that they lie in; the sums stay in the processor's cache.
    """
    R, F = len(x), weight.shape[1]
    for r in range(R):
        sums[r, :F] = np.float32(0)
    last, whole = start + (end - start) // INPUTS * INPUTS, F // SHARE * SHARE
    ahead = start * F + FURTHER
    for i in range(start, last, INPUTS):
        for f in range(0, whole, SHARE):
            ask_ahead(weight, ahead)
            ahead += INPUTS * SHARE
            weights = load_weights(weight, i, f)
            for r in range(R):
                add_inputs(weights, x, r, i, sums, f)
    for r in range(R):
        for i in range(start, end):
            for f in range(whole if i < last else 0, F):
                sums[r, f] += x[r, i] * weight[i, f]


# ---- more rows: tiles of sums in registers --------------------------------------------------------------------------


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
    """As `add_to_few`, for whole tiles of rows: each weight that is loaded goes into several sums in registers."""
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
    several = x if R <= SINGLY else padded(x)
    for block in prange(blocks):
        start = np.int64(block) * size
        if R == 1:
            add_to_one(x, weight, start, min(D, start + size), sums[block])
        elif R <= SINGLY:
            add_to_few(x, weight, start, min(D, start + size), sums[block])
        else:
            add_to_many(several, weight, start, min(D, start + size), sums[block])
    if R == 1:
        gather(sums[:blocks], bias, 0, out)
        return
    for r in prange(R):
        gather(sums[:blocks], bias, r, out)

"""float32 products by AMX, whose tiles multiply bfloat16: six products of parts make one float32 product.

With a = a₁ + a₂ + a₃ and b = b₁ + b₂ + b₃ (`float32_parts`), a·b is taken to be a₁b₁ + a₁b₂ + a₂b₁ + a₂b₂ + a₁b₃ +
a₃b₁; what is left out is smaller than float32's rounding of a·b. (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16
Artificial Intelligence Datatype For Higher-Precision Computations".) Products of parts are exact and sums are float32.
A sum is rounded six times in 32 terms, and not 32 times; `blocks` of terms are summed in sequence, then the blocks'
sums. So the error is about half that of float32 vectors. Numbers below float32's normal range count as 0.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void
from numba.core import cgutils
from numba.extending import register_jitable

from .amx import BYTES_OF_ROW, ROWS, configure, load_tile, multiply_halves, release, store_tile
from .compiled import compiled
from .dot_products import FLOATS, INDEX
from .dynamic_schedule import next_piece
from .float32_parts import PARTS, SIDE, STEP, TERMS, TILE, halves2, pack
from .kernel_types import PARALLEL_NOGIL, SERIAL, matrix, out2, pieces2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, address, emits, index_after, load, prefetch_line, store

Array = np.ndarray
BLOCK = 384  # terms of the sums that are packed at a time
STAYING = 512  # rows or columns that stay packed, at most: BLOCK terms of them fit in the second-level cache
SCRATCH = (STAYING + 2 * SIDE) * BLOCK * PARTS  # numbers of bfloat16
LEFT, RIGHT = 4, 6  # the tiles behind the sums'
# Pairs of parts, 0-based. One of the two stays in its tiles from each pair to the next.
PAIRS = ((2, 0), (0, 0), (0, 2), (0, 1), (1, 1), (1, 0))


def multiply(
    panel: Array,
    left: int,
    right: int,
    steps: int,
    bias: Array,
    sums: Array,
    r: int,
    c: int,
    later: Array,
    i: int,
    j: int,
) -> None:
    """Write the product of two packed panels, from ``panel[left]`` and ``panel[right]`` on, to SIDE × SIDE of ``sums``.

    They have `steps` times TERMS terms. ``sums[r, c]`` is the first sum, and ``bias[c : c + SIDE]`` is added.
    ``later[i : i + SIDE, j : j + SIDE]`` is prefetched.
    """
    shape = (steps, PARTS, SIDE, ROWS, 2)
    a, b = (
        (panel[first : first + steps * STEP].astype(np.uint32) << 16).view(np.float32).reshape(shape)
        for first in (left, right)
    )
    rows = a.transpose(1, 2, 0, 4, 3).reshape(PARTS, SIDE, -1)
    columns = b.reshape(steps, PARTS, 2, ROWS, ROWS, 2).transpose(1, 0, 5, 3, 2, 4).reshape(PARTS, -1, SIDE)
    sums[r : r + SIDE, c : c + SIDE] = bias[c : c + SIDE] + sum(rows[k] @ columns[n] for k, n in PAIRS)


@emits(multiply, lambda panel, left, right, steps, bias, sums, r, c, later, i, j: types.void)
def _multiply(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    panel, left, right, steps, bias, sums, r, c, later, i, j = arguments
    of_panel, of_bias, of_sums, of_later = (signature.args[k] for k in (0, 4, 5, 8))
    for tile in range(4):  # the same row, again and again
        place = address(context, builder, of_bias, bias, index_after(builder, c, tile % 2 * ROWS))
        load_tile(builder, tile, place, INDEX(0))
    with cgutils.for_range(builder, steps) as loop:
        with builder.if_then(builder.icmp_signed("<", loop.index, INDEX(SIDE // 4))):
            for row in range(4):
                number = index_after(builder, builder.add(i, builder.mul(loop.index, INDEX(4))), row)
                line = address(context, builder, of_later, later, number, j)
                for half in range(2):
                    prefetch_line(builder, builder.gep(line, [INDEX(half * ROWS)]), level=1)
        held: dict[int, int] = {}
        for pair in PAIRS:
            for side, start, part in zip((LEFT, RIGHT), (left, right), pair, strict=True):
                if held.get(side) != part:
                    first = builder.add(start, builder.mul(loop.index, INDEX(STEP)))
                    for half in range(2):
                        place = address(
                            context, builder, of_panel, panel, index_after(builder, first, (2 * part + half) * TILE)
                        )
                        load_tile(builder, side + half, place, INDEX(BYTES_OF_ROW))
                held[side] = part
            for tile in range(4):
                multiply_halves(builder, tile, LEFT + tile // 2, RIGHT + tile % 2)
    width = builder.extract_value(context.make_array(of_sums)(context, builder, sums).shape, 1)
    for tile in range(4):
        row, column = index_after(builder, r, tile // 2 * ROWS), index_after(builder, c, tile % 2 * ROWS)
        place = address(context, builder, of_sums, sums, row, column)
        store_tile(builder, tile, place, builder.mul(width, INDEX(4)))
    return context.get_dummy_value()


def add(sums: Array, out: Array, r: int, c: int) -> None:
    """Add (SIDE, SIDE) sums to ``out``, from ``out[r, c]`` on."""
    out[r : r + SIDE, c : c + SIDE] += sums


@emits(add, lambda sums, out, r, c: types.void)
def _add(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    sums, out, r, c = arguments
    with cgutils.for_range(builder, INDEX(SIDE)) as loop:
        one = address(context, builder, signature.args[0], sums, loop.index, INDEX(0))
        other = address(context, builder, signature.args[1], out, builder.add(r, loop.index), c)
        for first in range(0, SIDE, LANES):
            both = [load(builder, place, FLOATS, first) for place in (one, other)]
            store(builder, builder.fadd(*both), other, first)
    return context.get_dummy_value()


@register_jitable
def block(
    panels: Array,
    left: int,
    right: int,
    steps: int,
    bias: Array,
    t: int,
    some: Array,
    out: Array,
    r: int,
    c: int,
    bottom: int,
    stop: int,
) -> None:
    """Add the product of two packed panels to ``out[r : r + SIDE, c : c + SIDE]``, within its edges.

    At the first terms, where t is 0, the product plus the bias is stored instead. ``some`` is (SIDE, SIDE).
    """
    height, width = min(SIDE, bottom - r), min(SIDE, stop - c)
    whole = height == SIDE and width == SIDE
    if t == 0 and whole:
        multiply(panels, left, right, steps, bias, out, r, c, out, r, c)
        return
    multiply(panels, left, right, steps, np.zeros(SIDE, np.float32), some, 0, 0, out, r, c)
    if whole:
        add(some, out, r, c)
        return
    for i in range(height):
        for j in range(width):
            out[r + i, c + j] = some[i, j] + (bias[c + j] if t == 0 else out[r + i, c + j])


def blocks(R: int, K: int, C: int) -> tuple[int, int]:
    """Return how many terms of a sum a product packs at a time, and of how many rows or columns these fit in the cache.

    Where the result is wide or high, all terms at once save a second pass over it.
    """
    whole = -(-K // TERMS) * TERMS
    terms = whole if whole <= 2 * BLOCK and min(R, C) * whole <= STAYING * BLOCK else BLOCK
    return terms, STAYING * BLOCK // terms // SIDE * SIDE


number, truth = types.int64, types.boolean


@register_jitable(**SERIAL)
def float32_product(
    a: Array,
    a_down: bool,
    b: Array,
    b_down: bool,
    bias: Array,
    terms: int,
    scratch: Array,
    out: Array,
    top: int,
    bottom: int,
    start: int,
    stop: int,
) -> None:
    """Write a @ b + bias into ``out[top:bottom, start:stop]``: (R, K), (K, C), (C,) → (R, C).

    `a_down` says that ``a`` is given as (K, R), the terms of a sum one below the other; without `b_down` ``b`` is given
    as (C, K). Of rows and columns the fewer stay packed while the others pass by, for so many `terms` of each sum at a
    time (`blocks`). ``scratch`` is (SCRATCH,). The bits don't depend on which rows and columns are computed together.
    """
    K = len(a) if a_down else a.shape[1]
    some = np.empty((SIDE, SIDE), np.float32)
    configure(ROWS, 8)
    for t in range(0, K, terms):
        steps = (min(terms, K - t) + TERMS - 1) // TERMS
        size = steps * STEP
        if bottom - top < stop - start:
            pack(a, True, a_down, top, bottom, t, steps, scratch, size)
            for c in range(start, stop, SIDE):
                pack(b, False, b_down, c, c + SIDE, t, steps, scratch, 0)
                for r in range(top, bottom, SIDE):
                    place = ((r - top) // SIDE + 1) * size
                    block(scratch, place, 0, steps, bias, t, some, out, r, c, bottom, stop)
        else:
            pack(b, False, b_down, start, stop, t, steps, scratch, size)
            for r in range(top, bottom, SIDE):
                pack(a, True, a_down, r, r + SIDE, t, steps, scratch, 0)
                for c in range(start, stop, SIDE):
                    place = ((c - start) // SIDE + 1) * size
                    block(scratch, 0, place, steps, bias, t, some, out, r, c, bottom, stop)
    release()


@compiled(void(matrix, truth, matrix, truth, vector, number, pieces2, halves2, out2), **PARALLEL_NOGIL)
def float32_tiles(
    a: Array, a_down: bool, b: Array, b_down: bool, bias: Array, terms: int, pieces: Array, scratch: Array, out: Array
) -> None:
    """Compute `float32_product` in ``pieces``, (n, 4): first and last rows and columns. ``scratch`` is (threads,
    SCRATCH).
    """
    if threads_here() == 1:
        for n in range(len(pieces)):
            top, bottom, start, stop = pieces[n]
            float32_product(a, a_down, b, b_down, bias, terms, scratch[0], out, top, bottom, start, stop)
    else:
        taken = np.zeros(1, np.int64)
        for worker in prange(threads_here()):
            n = next_piece(taken)
            while n < len(pieces):
                top, bottom, start, stop = pieces[n]
                float32_product(a, a_down, b, b_down, bias, terms, scratch[worker], out, top, bottom, start, stop)
                n = next_piece(taken)

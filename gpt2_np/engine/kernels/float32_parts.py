"""float32 matrices split into bfloat16 parts, and packed in the order in which AMX's tiles load them.

A float32 number has 24 significant bits, so it is exactly the sum of three bfloat16 numbers of 8: the first is the
number rounded, the second the remainder rounded, the third what then remains. (Numbers within half a percent of
float32's largest become infinite; the parts of infinity and NaN add up to NaN.)

A panel holds SIDE rows of the left matrix, or SIDE columns of the right one, TERMS terms of their sums at a time: the
three parts, of each two tiles, of each 16 lines of 16 pairs. A pair holds the terms t and t + 16, so that a whole
vector of terms is merged with another one, whichever way the matrix lies in memory. Beyond its edges are zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import register_jitable

from .amx import ROWS
from .dot_products import FLOATS, WORDS
from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, address, emits, index_after, load, prefetch_line, store, transposed

Array = np.ndarray
PARTS = 3
SIDE = 2 * ROWS  # rows or columns of a panel
TERMS = 32  # terms of the sums in a tile
TILE = ROWS * TERMS  # numbers of a tile
STEP = PARTS * 2 * TILE  # numbers of a panel for TERMS terms
_UPPER, _HALF = 0xFFFF0000, 0x8000
halves1 = types.Array(types.uint16, 1, "C")
halves2 = types.Array(types.uint16, 2, "C")


def parts(x: Array) -> list[Array]:
    """Return the three bfloat16 parts of float32 numbers, as float32."""
    found, x = [], np.ascontiguousarray(x)
    with np.errstate(invalid="ignore"):  # infinity less itself
        for _ in range(PARTS - 1):
            found.append(((x.view(np.uint32) + np.uint32(_HALF)) & np.uint32(_UPPER)).view(np.float32))
            x = x - found[-1]
    return [*found, x]


def _packing(left: bool, down: bool) -> Callable[..., None]:
    """Return the function that packs a tile of the left or of the right matrix.

    It reads 16 × 32 numbers of ``x`` whose first is ``x[r, c]``, or 32 × 16 where the terms of a sum run `down` the
    columns, and writes their parts from ``panel[place]`` on, two tiles apart.
    """

    def pack(x: Array, r: int, c: int, panel: Array, place: int) -> None:
        lines = x[r : r + TERMS, c : c + ROWS].T if down else x[r : r + ROWS, c : c + TERMS]
        for part in parts(lines):
            pairs = part.reshape(ROWS, 2, ROWS).transpose((0, 2, 1) if left else (2, 0, 1))
            panel[place : place + TILE] = (np.ascontiguousarray(pairs).view(np.uint32) >> 16).reshape(-1)
            place += 2 * TILE

    @emits(pack, lambda x, r, c, panel, place: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        x, r, c, panel, place = arguments
        kind = signature.args[0]

        def lines(more: int) -> list[Value]:
            """The 16 × 16 numbers whose terms are the first 16 or the last 16."""
            first = (index_after(builder, r, more), c) if down else (r, index_after(builder, c, more))
            places = [
                address(context, builder, kind, x, index_after(builder, first[0], line), first[1])
                for line in range(ROWS)
            ]
            row, column = (0, SIDE) if down else (SIDE, 0)  # the same place of the next panel
            for line in range(ROWS):
                beside = index_after(builder, first[0], line + row), index_after(builder, first[1], column)
                prefetch_line(builder, address(context, builder, kind, x, *beside))
            found = [load(builder, place, FLOATS) for place in places]
            return transposed(builder, found) if left == down else found

        for line, (low, high) in enumerate(zip(lines(0), lines(ROWS), strict=True)):
            both = zip(_parts(builder, low), _parts(builder, high), strict=True)
            for part, (lower, upper) in enumerate(both):
                words = builder.or_(builder.lshr(lower, _words(16)), builder.and_(upper, _words(_UPPER)))
                there = index_after(builder, place, 2 * part * TILE + line * TERMS)
                store(builder, words, address(context, builder, signature.args[3], panel, there))
        return context.get_dummy_value()

    return pack


def _parts(builder: Builder, x: Value) -> list[Value]:
    """Emit `parts`; the results are the numbers' bits."""
    found = []
    for _ in range(PARTS - 1):
        rounded = builder.and_(builder.add(builder.bitcast(x, WORDS), _words(_HALF)), _words(_UPPER))
        found.append(rounded)
        x = builder.fsub(x, builder.bitcast(rounded, FLOATS))
    return [*found, builder.bitcast(x, WORDS)]


def _words(number: int) -> Value:
    return ir.Constant(WORDS, [number] * LANES)


pack_left, pack_left_down = _packing(True, False), _packing(True, True)
pack_right, pack_right_down = _packing(False, False), _packing(False, True)


@register_jitable
def pack(
    x: Array, left: bool, down: bool, first: int, last: int, t: int, steps: int, panels: Array, place: int
) -> None:
    """Pack `steps` times TERMS terms, from the t-th on, of all rows or columns from `first` to `last`.

    Their panels follow each other from ``panels[place]`` on.
    """
    count = (last - first + SIDE - 1) // SIDE
    for outer in range(steps if down else count):
        for inner in range(count if down else steps):
            step, n = (outer, inner) if down else (inner, outer)
            pack_step(x, left, down, first + n * SIDE, t + step * TERMS, panels, place + (n * steps + step) * STEP)


@register_jitable
def pack_step(x: Array, left: bool, down: bool, p: int, t: int, panel: Array, place: int) -> None:
    """Pack TERMS terms, from the t-th on, of SIDE rows or columns, from the p-th on, from ``panel[place]`` on."""
    P, K = (x.shape[1], x.shape[0]) if down else (x.shape[0], x.shape[1])
    for half in range(2):
        first, there = p + half * ROWS, place + half * TILE
        r, c = (t, first) if down else (first, t)
        if first + ROWS <= P and t + TERMS <= K:
            _pack(x, left, down, r, c, panel, there)
        else:  # over the edge
            height, width = (TERMS, ROWS) if down else (ROWS, TERMS)
            whole = np.zeros((height, width), np.float32)
            for i in range(min(height, x.shape[0] - r)):
                for j in range(min(width, x.shape[1] - c)):
                    whole[i, j] = x[r + i, c + j]
            _pack(whole, left, down, 0, 0, panel, there)


@register_jitable
def _pack(x: Array, left: bool, down: bool, r: int, c: int, panel: Array, place: int) -> None:
    if left and down:
        pack_left_down(x, r, c, panel, place)
    elif left:
        pack_left(x, r, c, panel, place)
    elif down:
        pack_right_down(x, r, c, panel, place)
    else:
        pack_right(x, r, c, panel, place)

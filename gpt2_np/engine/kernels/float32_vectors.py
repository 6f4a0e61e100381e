"""float32 products of two matrices that aren't packed yet: those of training, whose weights change at every step.

The right matrix is packed a block of its terms and WIDTH columns at a time, which fits in a core's cache, and then
all rows pass over it, as over a panel of weights (`float32_steps`). Meanwhile the next block is prefetched. The order
of the sums is the same too, so their bits depend neither on the number of threads nor on how the result is divided.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .compiled import compiled
from .dot_products import FLOATS, INDEX
from .dynamic_schedule import next_piece
from .float32_steps import BLOCK, NARROW, NARROW_STEPS, ROWS_PER_PASS, STEPS, WIDTH, add_bias_of_block, padded
from .kernel_types import PARALLEL_NOGIL, SERIAL, matrix, out2, pieces2, threads_here, vector
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import put_columns
from .simd import LANES, LINE_FLOATS, address, emits, index_after, load, prefetch_element, store, transposed

Array = np.ndarray
LINES = BLOCK * WIDTH // LINE_FLOATS  # cache lines of a block
# Lines are prefetched by the last of LINE_FLOATS numbers: where rows aren't aligned to cache lines, as those of 50,257
# logits, the first number lies in a line that the columns before have brought in, and the last one in the next line.
LAST_IN_LINE = LINE_FLOATS - 1
number, truth = types.int64, types.boolean


def transpose(x: Array, r: int, c: int, out: Array, i: int, j: int) -> None:
    """Write LANES × LANES numbers, from ``x[r, c]`` on, transposed to ``out``, from ``out[i, j]`` on."""
    out[i : i + LANES, j : j + LANES] = x[r : r + LANES, c : c + LANES].T


@emits(transpose, lambda x, r, c, out, i, j: types.void)
def _transpose(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    x, r, c, out, i, j = arguments
    of_x, of_out = signature.args[0], signature.args[3]
    lines = [
        load(builder, address(context, builder, of_x, x, index_after(builder, r, line), c), FLOATS)
        for line in range(LANES)
    ]
    for line, values in enumerate(transposed(builder, lines)):
        store(builder, values, address(context, builder, of_out, out, index_after(builder, i, line), j))
    return context.get_dummy_value()


def copy(x: Array, r: int, c: int, out: Array, i: int) -> None:
    """Write WIDTH numbers, from ``x[r, c]`` on, to ``out[i]``."""
    out[i] = x[r, c : c + WIDTH]


@emits(copy, lambda x, r, c, out, i: types.void)
def _copy(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    x, r, c, out, i = arguments
    there = address(context, builder, signature.args[0], x, r, c)
    here = address(context, builder, signature.args[3], out, i, INDEX(0))
    for first in range(0, WIDTH, LANES):
        store(builder, load(builder, there, FLOATS, first), here, first)
    return context.get_dummy_value()


@register_jitable
def transpose_all(x: Array, r: int, c: int, height: int, width: int, out: Array) -> None:
    """Write ``x[r : r + height, c : c + width]``, transposed, to the beginning of ``out``."""
    whole_rows, whole_columns = height - height % LANES, width - width % LANES
    for i in range(0, whole_rows, LANES):
        for j in range(0, whole_columns, LANES):
            transpose(x, r + i, c + j, out, j, i)
    for i in range(height):
        for j in range(whole_columns if i < whole_rows else 0, width):
            out[j, i] = x[r + i, c + j]


@register_jitable
def pack(b: Array, down: bool, t: int, terms: int, c: int, columns: int, panel: Array) -> None:
    """Write some terms, from the t-th on, of some columns, from the c-th on, into ``panel``: (BLOCK, WIDTH)."""
    if columns < WIDTH:
        panel[:terms] = 0
    if down and columns == WIDTH:
        for k in range(terms):
            copy(b, t + k, c, panel, k)
    elif down:
        for k in range(terms):
            for j in range(columns):
                panel[k, j] = b[t + k, c + j]
    else:
        transpose_all(b, c, t, columns, terms, panel)


@register_jitable
def prefetch_some(b: Array, down: bool, t: int, c: int, first: int, last: int) -> None:
    """Prefetch some of the LINES cache lines of a block from the t-th term and the c-th column on."""
    across = (WIDTH if down else BLOCK) // LINE_FLOATS  # lines of the block in a row of the matrix
    for line in range(first, last):
        row, column = line // across, line % across * LINE_FLOATS + LAST_IN_LINE
        if down:
            prefetch_element(b, t + row, c + column)
        else:
            prefetch_element(b, c + row, t + column)


def _pass_over(steps: dict[int, Callable[..., None]]) -> Callable[..., int]:
    """Return the pass of some rows over a block by these steps.

    They are ROWS_PER_PASS, 2 or 1 rows: steps for every number, as `float32_steps.rows_step` has them, take longer to
    compile, and for many rows are no faster.
    """
    one_row, two_rows, most_rows = steps[1], steps[2], steps[ROWS_PER_PASS]

    @register_jitable(forceinline=True)
    def pass_over(x: Array, r: int, t: int, panel: Array, first: int, last: int, out: Array, f: int) -> int:
        """Let rows of x, from the r-th on, pass over a block's terms from ``first`` to ``last``; return how many.

        The block's terms are those of x from the t-th on.
        """
        left = len(x) - r
        if left >= ROWS_PER_PASS:
            most_rows(x, r, t, panel, 0, first, last, 0, 0, 1, out, f)
            return ROWS_PER_PASS
        if left >= 2:
            two_rows(x, r, t, panel, 0, first, last, 0, 0, 1, out, f)
            return 2
        one_row(x, r, t, panel, 0, first, last, 0, 0, 1, out, f)
        return 1

    return pass_over


narrow_pass_over = _pass_over(NARROW_STEPS)
pass_over = narrow_pass_over if WIDTH == NARROW else _pass_over(STEPS)


@register_jitable
def columns_of_block(
    x: Array, b: Array, down: bool, bias: Array, c: int, stop: int, panel: Array, out: Array, f: int
) -> None:
    """Write x times WIDTH columns of b, from the c-th on, into as many columns of ``out``, from the f-th on.

    The bias of these columns, (WIDTH,) or empty, is added. ``panel``, (1, BLOCK, WIDTH), is working memory. Of the
    columns behind `stop` nothing is read or prefetched, and 0 is written.
    """
    R, K, columns = len(x), len(b) if down else b.shape[1], min(WIDTH, stop - c)
    lines = 1 + LINES * ROWS_PER_PASS // R  # of the next block, for each pass
    for t in range(0, K, BLOCK):
        terms = min(BLOCK, K - t)
        pack(b, down, t, terms, c, columns, panel[0])
        next_t, next_c = (t + BLOCK, c) if t + BLOCK < K else (0, c + WIDTH)
        r = line = 0
        while r < R:
            ahead, line_ahead = min(R, r + ROWS_PER_PASS), min(LINES, line + lines)
            if next_c < stop:
                prefetch_some(b, down, next_t, next_c, line, line_ahead)
            line = line_ahead
            if t == 0:
                for row in range(ahead, min(R, ahead + ROWS_PER_PASS)):
                    for k in range(LAST_IN_LINE, WIDTH, LINE_FLOATS):
                        prefetch_element(out, row, f + k)
            rows = pass_over(x, r, t, panel, 0, terms, out, f)
            if len(bias) and t + BLOCK >= K:
                add_bias_of_block(bias, r, rows, out, f)
            r += rows


@register_jitable(**SERIAL)
def float32_columns(x: Array, b: Array, down: bool, bias: Array, out: Array, start: int, stop: int) -> None:
    """Write x @ b, plus the bias unless that is empty, into ``out[:, start:stop]``: (R, K), (K, C), (C,) → (R, C).

    Without `down` ``b`` is given as (C, K), the terms of a sum beside each other. ``x`` may have more than K columns.
    """
    R = len(x)
    panel = np.empty((1, BLOCK, WIDTH), np.float32)
    whole = np.empty((R if (stop - start) % WIDTH else 0, WIDTH), np.float32)
    for c in range(start, stop, WIDTH):
        columns = min(WIDTH, stop - c)
        sums, f = (out, c) if columns == WIDTH else (whole, 0)
        biases = bias[c : c + WIDTH]
        if 0 < len(biases) < WIDTH:
            biases = padded(biases)
        columns_of_block(x, b, down, biases, c, stop, panel, sums, f)
        if columns < WIDTH:
            put_columns(whole, out, c)


@register_jitable(**SERIAL)
def float32_columns_as_rows(x: Array, b: Array, down: bool, out: Array, f: int, start: int, stop: int) -> None:
    """Write the transposed product, bᵀ @ xᵀ, into ``out[start:stop, f : f + R]``: (R, K), (K, C) → (C, R or more).

    ``x`` and ``b`` are given as to `float32_columns`, and the bits are the same.
    """
    panel, whole = np.empty((1, BLOCK, WIDTH), np.float32), np.empty((len(x), WIDTH), np.float32)
    no_bias = np.empty(0, np.float32)
    for c in range(start, stop, WIDTH):
        columns_of_block(x, b, down, no_bias, c, stop, panel, whole, 0)
        transpose_all(whole, 0, 0, len(x), min(WIDTH, stop - c), out[c : min(stop, c + WIDTH), f : f + len(x)])


@register_jitable(**SERIAL)
def float32_piece(
    n: int, a: Array, a_down: bool, b: Array, b_down: bool, bias: Array, swapped: bool, pieces: Array, out: Array
) -> None:
    """Compute the n-th piece of `float32_pieces`."""
    top, bottom, start, stop = pieces[n]
    if a_down:
        # Rows that lie a multiple of 4 KB apart would displace each other from the first-level cache.
        x = np.empty((bottom - top, len(a) + LANES), np.float32)
        transpose_all(a, 0, top, len(a), bottom - top, x)
    else:
        x = a[top:bottom]
    if swapped:
        float32_columns_as_rows(x, b, b_down, out, top, start, stop)
    else:
        float32_columns(x, b, b_down, bias, out[top:bottom], start, stop)


@compiled(void(matrix, truth, matrix, truth, vector, truth, pieces2, out2), **PARALLEL_NOGIL)
def float32_pieces(
    a: Array, a_down: bool, b: Array, b_down: bool, bias: Array, swapped: bool, pieces: Array, out: Array
) -> None:
    """Write a @ b, plus the bias unless that is empty, into ``out``: (R, K), (K, C), (C,) → (R, C); `swapped`, the
    transposed product.

    `a_down` says that ``a`` is given as (K, R), the terms of a sum one below the other; without `b_down` ``b`` is given
    as (C, K). ``pieces``, (n, 4), are the first and last rows and columns of the result's parts, before it is
    transposed.
    """
    if threads_here() == 1:
        for n in range(len(pieces)):
            float32_piece(n, a, a_down, b, b_down, bias, swapped, pieces, out)
    else:
        taken = np.zeros(1, np.int64)
        for _ in prange(threads_here()):
            n = next_piece(taken)
            while n < len(pieces):
                float32_piece(n, a, a_down, b, b_down, bias, swapped, pieces, out)
                n = next_piece(taken)

"""Blocks of a float32 matrix over which many rows pass: each is packed once, WIDTH columns at a time.

A block of WIDTH columns fits in a core's cache. All rows pass over it as over a panel of weights (`float32_steps`), in
the same order of sums, and meanwhile the next block is prefetched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import register_jitable

from .dot_products import FLOATS, INDEX
from .float32_steps import BLOCK, NARROW, NARROW_STEPS, ROWS_PER_PASS, STEPS, WIDTH, add_bias_of_block
from .llvm import Builder, Context, Signature, Value, Values
from .simd import LANES, LINE_FLOATS, address, emits, index_after, load, prefetch_element, store, transposed

Array = np.ndarray
LINES = BLOCK * WIDTH // LINE_FLOATS  # cache lines of a block
# Lines are prefetched by the last of LINE_FLOATS numbers: where rows aren't aligned to cache lines, as those of 50,257
# logits, the first number lies in a line that the columns before have brought in, and the last one in the next line.
LAST_IN_LINE = LINE_FLOATS - 1


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

"""float32 and bfloat16 matrices in packed panels, times any number of vectors: most of the model's time goes here.

A panel is multiplied block by block (`float32_steps`), with AVX2 by many rows WIDTH columns at a time
(`float32_blocks`). Threads divide the panels among them, and the rows where there are few panels.
"""

from __future__ import annotations

import numpy as np
from numba import prange, void
from numba.extending import register_jitable

from ...weights.panels import TILE
from .compiled import compiled
from .float32_blocks import LINES, copy, prefetch_some
from .float32_steps import BLOCK, ROWS_PER_PASS, WIDTH, add_bias_of_block, padded, pass_of_block, rows_over_block
from .kernel_types import PARALLEL, SERIAL, matrix, out2, panels3, threads_here, vector
from .panel_passes import ROWS_PER_PANEL_PASS, put_columns
from .simd import LINE_BYTES

Array = np.ndarray
EVEN = 16  # panels for each thread from which on it matters little that they can't be divided evenly
MANY_ROWS = 48  # rows from which on a copy of WIDTH columns pays, if these are fewer than a panel's
FEWEST_DIVIDED = 96  # rows from which on a panel is worth dividing by rows


@register_jitable
def panel_of_rows(n: int, x: Array, panels: Array, span: int, bias: Array, out: Array, f: int) -> None:
    """Write x times the n-th panel, plus the bias, into TILE columns of ``out``, from the f-th on.

    ``span`` inputs share a word of the panel. ROWS_PER_PANEL_PASS rows at a time pass over it block by block, so that
    their sums stay in the cache.
    """
    R, D = x.shape
    each = TILE * 4 // LINE_BYTES
    for first in range(0, R, ROWS_PER_PANEL_PASS):
        beyond = min(R, first + ROWS_PER_PANEL_PASS)
        for start in range(0, D, BLOCK):
            end = min(D, start + BLOCK)
            lines = (end - start) // span * each
            rows_over_block(x, first, beyond, 0, panels, n, start, end, 0, lines, each, bias, out, f)


@register_jitable
def panel_and_bias(n: int, x: Array, panels: Array, span: int, bias: Array, out: Array) -> None:
    """Write x times the n-th panel, plus the bias, into its columns of ``out``. The last panel may have fewer
    columns.
    """
    R, F, f = len(x), out.shape[1], n * TILE
    if f + TILE <= F:
        panel_of_rows(n, x, panels, span, bias[f : f + TILE], out, f)
    else:
        whole = np.empty((R, TILE), np.float32)
        panel_of_rows(n, x, panels, span, padded(bias[f:]), whole, 0)
        put_columns(whole, out, f)


@register_jitable
def in_whole_passes(R: int) -> int:
    """Return how many of R rows `panel_of_many_rows` multiplies: none if they are few, else all whole passes."""
    return R - R % ROWS_PER_PASS if R >= MANY_ROWS else 0


@register_jitable
def panel_of_many_rows(n: int, x: Array, panel: Array, bias: Array, out: Array) -> None:
    """Compute `panel_and_bias` for whole passes of many rows and a float32 panel, (D, TILE).

    Each block of WIDTH columns is copied, and stays in the first-level cache; the next one is prefetched. The bits are
    the same.
    """
    (R, D), F, f = x.shape, out.shape[1], n * TILE
    block, whole = np.empty((1, BLOCK, WIDTH), np.float32), np.empty((R if f + TILE > F else 0, TILE), np.float32)
    sums, column, biases = (out, f, bias[f : f + TILE]) if f + TILE <= F else (whole, 0, padded(bias[f:]))
    for first in range(0, R, ROWS_PER_PANEL_PASS):
        beyond = min(R, first + ROWS_PER_PANEL_PASS)
        lines = 1 + LINES * ROWS_PER_PASS // (beyond - first)
        for c in range(0, TILE, WIDTH):
            for t in range(0, D, BLOCK):
                terms, line = min(BLOCK, D - t), 0
                for k in range(terms):  # `pack` would be compiled with all that transposes, at every first start
                    copy(panel, t + k, c, block[0], k)
                next_t, next_c = (t + BLOCK, c) if t + BLOCK < D else (0, c + WIDTH)
                for r in range(first, beyond, ROWS_PER_PASS):
                    prefetch_some(panel, True, next_t, next_c, line, min(LINES, line + lines))
                    pass_of_block(x, r, t, block, 0, 0, terms, 0, 0, 1, sums, column + c)
                    line += lines
            add_bias_of_block(biases[c:], first, beyond - first, sums, column + c)
    if f + TILE > F:
        put_columns(whole, out, f)


@register_jitable
def rows_per_task(R: int, panels: int) -> int:
    """Return how many of R rows a thread takes at a time: all, or fewer where few panels would leave a thread idle.

    Five panels on two threads are three and two: a sixth of the time is lost.
    """
    if panels % threads_here() == 0 or panels >= EVEN * threads_here() or R < FEWEST_DIVIDED:
        return max(R, 1)
    half = (R + 2 * ROWS_PER_PASS - 1) // (2 * ROWS_PER_PASS) * ROWS_PER_PASS
    return min(ROWS_PER_PANEL_PASS, half)


def _panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    panel_and_bias(n, x, panels, 1, bias, out)


def _panel_by_copies(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    many = in_whole_passes(len(x))
    if many > 0:
        panel_of_many_rows(n, x[:many], panels[n], bias, out[:many])
    if many < len(x):
        panel_and_bias(n, x[many:], panels, 1, bias, out[many:])


# Compiled once for the serial and the parallel loop of `float32_panels`.
float32_panel = register_jitable(**SERIAL)(_panel_by_copies if WIDTH < TILE else _panel)


@compiled(void(matrix, panels3, matrix, vector, out2), **PARALLEL)
def float32_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x @ weights + bias into ``out``: (R, D), panels (as `weights.panels`), no scales, (F,) → (R, F)."""
    if threads_here() == 1:
        for n in range(len(codes)):
            float32_panel(n, x, codes, bias, out)
    else:
        rows = rows_per_task(len(x), len(codes))
        parts = (len(x) + rows - 1) // rows
        for task in prange(len(codes) * parts):
            n, first = task // parts, task % parts * rows
            end = min(len(x), first + rows)
            float32_panel(np.int64(n), x[first:end], codes, bias, out[first:end])

"""float32 products of two matrices that aren't packed yet: those of training, whose weights change at every step.

The right matrix is packed block by block, and all rows pass over each block (`float32_blocks`). The order of the sums
is that of packed panels, so their bits depend neither on the number of threads nor on how the result is divided.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types, void
from numba.extending import register_jitable

from .compiled import compiled
from .dynamic_schedule import next_piece
from .float32_blocks import columns_of_block, transpose_all
from .float32_steps import BLOCK, WIDTH, padded
from .kernel_types import PARALLEL_NOGIL, SERIAL, matrix, out2, pieces2, threads_here, vector
from .panel_passes import put_columns
from .simd import LANES

Array = np.ndarray
truth = types.boolean


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

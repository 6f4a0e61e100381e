"""bfloat16 matrices times many vectors: each block of a panel is widened to float32 once, for all rows.

The widened block stays in the second-level cache while rows pass over it as over a panel of float32, so the sums have
the same order, and the same bits, as where every pass widens the weights that it loads.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import register_jitable

from ...weights.panels import TILE, unpacked
from .amx import aligned
from .dot_products import INDEX, WORDS
from .float32_steps import BLOCK, padded, rows_over_block
from .llvm import Builder, Context, Signature, Value, Values
from .panel_passes import ROWS_PER_PANEL_PASS, put_columns
from .simd import LANES, LINE_BYTES, accumulate, address, bfloat16_pairs, emits, index_after, load, store

Array = np.ndarray
# With AVX-512 it pays for so many rows.
FEWEST_TO_WIDEN = 64


def widen(panels: Array, n: int, start: int, end: int, out: Array) -> None:
    """Write a panel's weights for the inputs from `start` to `end`, both even, into ``out``, (1, …, TILE) float32."""
    out[0, : end - start] = unpacked(panels[n : n + 1, start // 2 : end // 2])[0]


@emits(widen, lambda panels, n, start, end, out: types.void)
def _widen(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    panels, n, start, end, out = arguments
    words = address(context, builder, signature.args[0], panels, n, builder.udiv(start, INDEX(2)), INDEX(0))
    floats = address(context, builder, signature.args[4], out, INDEX(0), INDEX(0), INDEX(0))

    def step(d: Value, state: list[Value]) -> list[Value]:
        here = builder.gep(words, [builder.mul(d, INDEX(TILE))])
        for v in range(TILE // LANES):
            for k, half in enumerate(bfloat16_pairs(builder, load(builder, here, WORDS, v * LANES))):
                row = index_after(builder, builder.mul(d, INDEX(2 * TILE)), k * TILE + v * LANES)
                store(builder, half, builder.gep(floats, [row]))
        return state

    accumulate(builder, [], INDEX(0), builder.udiv(builder.sub(end, start), INDEX(2)), INDEX(1), step)
    return context.get_dummy_value()


@register_jitable
def widened_rows(n: int, x: Array, panels: Array, bias: Array, out: Array, f: int) -> None:
    """Write x times the n-th panel, plus the bias, into TILE columns of ``out``, from the f-th on: the twin of
    `float32.panel_of_rows` for many rows.
    """
    R, D = x.shape
    each = TILE * 2 // LINE_BYTES  # cache lines of the panel for each input
    block = aligned(BLOCK * TILE * 4)[: BLOCK * TILE * 4].view(np.float32).reshape(1, BLOCK, TILE)
    for first in range(0, R, ROWS_PER_PANEL_PASS):
        beyond = min(R, first + ROWS_PER_PANEL_PASS)
        for start in range(0, D, BLOCK):
            end = min(D, start + BLOCK)
            widen(panels, n, start, end, block)
            size = end - start
            # What is prefetched is the panel's next block, counted in lines from the widened one.
            ahead = (panels[n, start // 2 :].ctypes.data - block.ctypes.data) // LINE_BYTES
            rows_over_block(x, first, beyond, start, block, 0, 0, size, ahead, size * each, each, bias, out, f)


@register_jitable
def widened_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    """Run `widened_rows` for the n-th panel, of which the last one may have fewer columns."""
    F, f = out.shape[1], n * TILE
    if f + TILE <= F:
        widened_rows(n, x, panels, bias[f : f + TILE], out, f)
    else:
        whole = np.empty((len(x), TILE), np.float32)
        widened_rows(n, x, panels, padded(bias[f:]), whole, 0)
        put_columns(whole, out, f)

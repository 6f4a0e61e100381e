"""float32 and bfloat16 matrices in panels, times any number of vectors: the product that the model spends its time on.

One input at a time is repeated over the lanes and multiplied with a panel's weights for it (`weights.panels` says how
these lie): each output's sum has a lane of its own, so nothing is ever added across lanes, and the sums of several rows
stay in registers while a panel goes by.

Every sum is taken in one order, whatever the number of rows, of threads and of lanes: the inputs of a block of BLOCK
one behind the other, then the blocks' sums, then the bias. So a row's bits don't depend on the rest of the batch (batch
invariance), nor on whether its positions come together or one by one. Blocks also keep rounding errors small, which
grow with the number of terms in a row of additions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import prange, types, void
from numba.extending import register_jitable

from ...weights.panels import TILE, unpacked
from .arithmetic import PARALLEL, SERIAL, matrix, out2, panels3, threads_here, vector
from .blocks import ALONE, lines_to_prefetch, prefetch_step, put_columns
from .compiled import compiled
from .dots import FLOATS, INDEX, WORDS
from .llvm import Builder, Context, Signature, Value, Values
from .registers import (
    LANES,
    LINE_BYTES,
    WIDE,
    address,
    emits,
    further,
    load,
    multiply_add,
    prefetch,
    repeat,
    store,
    summing,
)

Array = np.ndarray
BLOCK = 256  # inputs whose products are added up one behind the other
VECTORS = 4  # vectors of outputs at a time: the sums of MOST rows find room in the registers
MOST = 6 if WIDE else 2  # rows at a time
SOON = 8  # how many inputs ahead weights are prefetched from the second-level cache into the first
SHARED = 192  # rows that share a panel before others do
UNROLLED = 4  # inputs at a time where a row is alone


def _step(rows: int) -> Callable[..., None]:
    """The product of so many rows, from the r-th on, with a block of a panel's inputs: written, or added, to ``out``.

    From input ``start`` to ``end``, for bfloat16 an even number of them; ``out[r : r + rows, f : f + TILE]`` is written
    where ``start`` is 0. ``line``, ``last`` and ``pace`` are as `blocks.lines_to_prefetch` gives them.
    """

    def step(
        x: Array,
        r: int,
        panels: Array,
        n: int,
        start: int,
        end: int,
        line: int,
        last: int,
        pace: int,
        out: Array,
        f: int,
    ) -> None:
        span = 1 if panels.dtype == np.float32 else 2  # inputs in a step
        sums = x[r : r + rows, start:end] @ unpacked(panels[n : n + 1, start // span : end // span])[0]
        out[r : r + rows, f : f + TILE] = sums + (out[r : r + rows, f : f + TILE] if start > 0 else 0)

    @emits(step, lambda x, r, panels, n, start, end, line, last, pace, out, f: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        x, r, panels, n, start, end, line, last, pace, out, f = arguments
        of_x, of_panels, of_out = signature.args[0], signature.args[2], signature.args[9]
        span = 1 if of_panels.dtype == types.float32 else 2  # inputs in a step: two share a word of bfloat16
        size = builder.udiv(builder.sub(end, start), INDEX(span))
        inputs = [address(context, builder, of_x, x, further(builder, r, row), start) for row in range(rows)]
        block = address(context, builder, of_panels, panels, n, builder.udiv(start, INDEX(span)), INDEX(0))
        width = VECTORS * LANES * 4  # bytes

        for column in range(0, TILE, VECTORS * LANES):

            def add(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                if rows > 1:
                    if column == 0:
                        prefetch_step(builder, block, d, line, last, pace)
                    here = builder.gep(block, [further(builder, builder.mul(d, INDEX(TILE)), column)])
                    prefetch(builder, here, width, SOON * TILE * 4, level=1)
                return times(d, sums)

            def times(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                here = builder.gep(block, [further(builder, builder.mul(d, INDEX(TILE)), column)])
                sums = list(sums)
                for k, weights in enumerate(_weights(builder, here, span)):
                    which = further(builder, builder.mul(d, INDEX(span)), k)
                    for row in range(rows):
                        each = repeat(builder, builder.load(builder.gep(inputs[row], [which])), FLOATS)
                        for v, weight in enumerate(weights):
                            sums[row * VECTORS + v] = multiply_add(builder, each, weight, sums[row * VECTORS + v])
                return sums

            def add_some(d: Value, sums: list[Value], column: int = column) -> list[Value]:
                for more in range(UNROLLED):
                    here = builder.mul(further(builder, d, more), INDEX(TILE))
                    prefetch(builder, builder.gep(block, [further(builder, here, column)]), width, ALONE)
                    sums = times(further(builder, d, more), sums)
                return sums

            sums, done = [ir.Constant(FLOATS, None)] * (rows * VECTORS), INDEX(0)
            if rows == 1:
                done = builder.sub(size, builder.srem(size, INDEX(UNROLLED)))
                sums = summing(builder, sums, INDEX(0), done, INDEX(UNROLLED), add_some)
            sums = summing(builder, sums, done, size, INDEX(1), add)
            places = [
                address(context, builder, of_out, out, further(builder, r, row), further(builder, f, offset))
                for row in range(rows)
                for offset in range(column, column + VECTORS * LANES, LANES)
            ]
            with builder.if_else(builder.icmp_signed("==", start, start.type(0))) as (fresh, more):
                with fresh:
                    for one, place in zip(sums, places, strict=True):
                        store(builder, one, place)
                with more:
                    for one, place in zip(sums, places, strict=True):
                        store(builder, builder.fadd(load(builder, place, FLOATS), one), place)
        return context.get_dummy_value()

    return step


def _weights(builder: Builder, where: Value, span: int) -> list[list[Value]]:
    """VECTORS vectors of weights for each input of a step: of float32, or both halves of words of bfloat16."""
    if span == 1:
        return [[load(builder, where, FLOATS, v * LANES) for v in range(VECTORS)]]
    words = [load(builder, where, WORDS, v * LANES) for v in range(VECTORS)]
    lower = [builder.shl(word, WORDS([16] * LANES)) for word in words]
    upper = [builder.and_(word, WORDS([0xFFFF0000] * LANES)) for word in words]
    return [[builder.bitcast(half, FLOATS) for half in halves] for halves in (lower, upper)]


STEPS = {rows: _step(rows) for rows in range(1, MOST + 1)}
one_row, two_rows = STEPS[1], STEPS[2]
three_rows, four_rows, five_rows, six_rows = (STEPS.get(rows, two_rows) for rows in (3, 4, 5, 6))


@register_jitable
def panel_of_rows(n: int, x: Array, panels: Array, span: int, bias: Array, out: Array, f: int) -> None:
    """x times the n-th panel, plus the bias, into TILE columns of ``out``, from the f-th on.

    ``span`` inputs share a word of the panel. SHARED rows at a time pass it, block by block, so that their sums stay in
    the cache meanwhile.
    """
    columns = len(bias)
    R, D = x.shape
    each = TILE * 4 // LINE_BYTES
    for first in range(0, R, SHARED):
        beyond = min(R, first + SHARED)
        for start in range(0, D, BLOCK):
            end = min(D, start + BLOCK)
            r = first
            while r < beyond:
                rows = min(beyond - r, MOST)
                line, last, pace = lines_to_prefetch(
                    r - first, rows, beyond - first, MOST, (end - start) // span * each, each
                )
                if rows == 1:
                    one_row(x, r, panels, n, start, end, line, last, pace, out, f)
                elif rows == 2:
                    two_rows(x, r, panels, n, start, end, line, last, pace, out, f)
                elif rows == 3:
                    three_rows(x, r, panels, n, start, end, line, last, pace, out, f)
                elif rows == 4:
                    four_rows(x, r, panels, n, start, end, line, last, pace, out, f)
                elif rows == 5:
                    five_rows(x, r, panels, n, start, end, line, last, pace, out, f)
                else:
                    six_rows(x, r, panels, n, start, end, line, last, pace, out, f)
                r += rows
        for r in range(first, beyond):
            for k in range(columns):
                out[r, f + k] += bias[k]


@register_jitable
def panel_and_bias(n: int, x: Array, panels: Array, span: int, bias: Array, out: Array) -> None:
    """x times the n-th panel, plus the bias, into its outputs' columns of ``out``. The last panel may have fewer."""
    R, F, f = len(x), out.shape[1], n * TILE
    if f + TILE <= F:
        panel_of_rows(n, x, panels, span, bias[f : f + TILE], out, f)
    else:
        whole = np.empty((R, TILE), np.float32)
        panel_of_rows(n, x, panels, span, bias[f:], whole, 0)
        put_columns(whole, out, f)


@compiled(void(types.int64, matrix, panels3, vector, out2), **SERIAL)
def float32_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    """`panel_and_bias`, compiled once for both ways of `float32_panels`."""
    panel_and_bias(n, x, panels, 1, bias, out)


@compiled(void(matrix, panels3, matrix, vector, out2), **PARALLEL)
def float32_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """x @ weights + bias into ``out``: (R, D), panels (as `weights.panels`), no scales, (F,) → (R, F)."""
    if threads_here() == 1:
        for n in range(len(codes)):
            float32_panel(n, x, codes, bias, out)
    else:
        for n in prange(len(codes)):
            float32_panel(np.int64(n), x, codes, bias, out)

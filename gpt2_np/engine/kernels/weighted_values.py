"""Attention's weighted sums of values: of one query, or of several, which share the values that they load.

A sum adds position after position, whatever is computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .dot_products import FLOATS, INDEX
from .llvm import Builder, Context, Signature, Value, Values
from .simd import AVX512, LANES, accumulate, address, broadcast, emits, index_after, load, multiply_add, prefetch, store

Array = np.ndarray
POSITIONS_AHEAD = 32  # how many positions ahead keys and values are prefetched
SUMS = 4 if AVX512 else 2  # queries at a time: their sums fit in the registers


def add_values_of_one(w: Array, values: Array, S: int, following: Array, out: Array) -> None:
    """Add the first S rows of ``values``, weighted by ``w[0]``, to ``out[0]``.

    w is (1, N); values are (N, K), out is (1, K). Values are prefetched some rows ahead; after the last row come the
    rows of ``following``.
    """
    out[0] += w[0, :S] @ values[:S]


@emits(add_values_of_one, lambda w, values, S, following, out: types.void)
def _add_values_of_one(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    w, values, S, following, out = arguments
    of_w, of_values, _, of_following, of_out = signature.args

    def prefetch_ahead(s: Value, d: Value, vectors: int) -> None:
        ahead = index_after(builder, s, POSITIONS_AHEAD)
        beyond = builder.sub(ahead, S)
        place = builder.select(
            builder.icmp_signed("<", beyond, S.type(0)),
            address(context, builder, of_values, values, ahead, d),
            address(context, builder, of_following, following, beyond, d),
        )
        prefetch(builder, place, 4 * vectors * LANES)

    def weight(s: Value, query: int) -> Value:
        return builder.load(address(context, builder, of_w, w, INDEX(query), s))

    _emit(context, builder, (of_values, of_out), (values, out), INDEX(0), (INDEX(0), S), 1, weight, prefetch_ahead)
    return context.get_dummy_value()


def _add_values(count: int) -> Callable[..., None]:
    """Return the function that adds the rows of ``values`` from `start` to `end`, weighted for so many queries, to as
    many rows of ``out``, from the i-th on.

    The queries have lanes: w is (N, LANES), and the weights are those of the lanes from the i-th on.
    """

    def add_values(w: Array, i: int, values: Array, start: int, end: int, out: Array) -> None:
        out[i : i + count] += w[start:end, i : i + count].T @ values[start:end]

    @emits(add_values, lambda w, i, values, start, end, out: types.void)
    def emit(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
        w, i, values, start, end, out = arguments
        of_w, _, of_values, _, _, of_out = signature.args
        first = address(context, builder, of_w, w, INDEX(0), i)

        def weight(s: Value, query: int) -> Value:
            return builder.load(builder.gep(first, [index_after(builder, builder.mul(s, INDEX(LANES)), query)]))

        _emit(context, builder, (of_values, of_out), (values, out), i, (start, end), count, weight, _no_prefetch)
        return context.get_dummy_value()

    return add_values


def _no_prefetch(s: Value, d: Value, vectors: int) -> None:
    """Prefetch nothing: the keys and values of several queries were just written, or are read repeatedly."""


def _emit(
    context: Context,
    builder: Builder,
    kinds: tuple[types.Array, types.Array],
    arrays: tuple[Value, Value],
    i: Value,
    positions: tuple[Value, Value],
    queries: int,
    weight: Callable[[Value, int], Value],
    prefetch_ahead: Callable[[Value, Value, int], None],
) -> None:
    """Emit the instructions of both functions, for some vectors of columns at a time.

    ``weight(s, query)`` loads a query's weight of a position; ``prefetch_ahead(s, d, vectors)`` prefetches what a later
    position needs. The sums of the first query are the i-th row of the result.
    """
    (of_values, of_out), (values, out) = kinds, arrays

    def columns(d: Value, vectors: int) -> None:
        kind = FLOATS if vectors else ir.FloatType()
        count = max(vectors, 1)

        def add(s: Value, sums: list[Value]) -> list[Value]:
            """One position's value, weighted for each query, added to its sums."""
            prefetch_ahead(s, d, vectors)
            here = address(context, builder, of_values, values, s, d)
            value = [load(builder, here, kind, v * LANES) for v in range(count)]
            sums = list(sums)
            for query in range(queries):
                mine = weight(s, query)
                each = broadcast(builder, mine, FLOATS) if vectors else mine
                for v, one in enumerate(value):
                    sums[query * count + v] = multiply_add(builder, each, one, sums[query * count + v])
            return sums

        rows = [address(context, builder, of_out, out, index_after(builder, i, query), d) for query in range(queries)]
        places = [(row, v * LANES) for row in rows for v in range(count)]
        sums = [load(builder, row, kind, offset) for row, offset in places]
        sums = accumulate(builder, sums, *positions, INDEX(1), add)
        for (row, offset), one in zip(places, sums, strict=True):
            store(builder, one, row, offset)

    first, K = INDEX(0), builder.extract_value(context.make_array(of_out)(context, builder, out).shape, 1)
    for vectors in (4, 2, 1, 0):
        width = INDEX(vectors * LANES or 1)
        end = builder.sub(K, builder.srem(builder.sub(K, first), width))
        with cgutils.for_range_slice(builder, first, end, width, inc=True) as (d, _):
            columns(d, vectors)
        first = end


add_some_values, add_values = _add_values(SUMS), _add_values(1)

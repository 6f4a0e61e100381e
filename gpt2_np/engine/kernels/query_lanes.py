"""Attention of consecutive queries, side by side: each has its own lane.

A key's entry is broadcast over the lanes and multiplied with the same entry of LANES queries, so that scores,
exponentials and their sums are computed without adding across lanes. Each sum takes its terms in the order in which
one query alone takes them (`dot_products.dot`, `exponential.exp_and_sum`), so the bits are the same: a dot product's
products are those that one lane sums there, and then the lanes' sums, in pairs.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .dot_products import FLOATS, INDEX, WORDS
from .exponential import exp_instructions
from .llvm import Builder, Context, Signature, Value, Values
from .simd import (
    AVX512,
    LANES,
    accumulate,
    add_in_pairs,
    address,
    broadcast,
    computed_here,
    emits,
    index_after,
    load,
    multiply_add,
    store,
    transposed,
)

Array = np.ndarray
KEYS = 4 if AVX512 else 2  # keys at a time
CHAINS = 4  # sums of each of them at a time, so that consecutive multiply-adds don't wait


def queries_in_lanes(q: Array, out: Array) -> None:
    """Write up to LANES queries, (n, K), into the columns of ``out``, (K, LANES). The last one fills what is left."""
    out[:, : len(q)] = q.T
    out[:, len(q) :] = q[-1, :, None]


@emits(queries_in_lanes, lambda q, out: types.void)
def _queries_in_lanes(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    q, out = arguments
    shape = context.make_array(signature.args[0])(context, builder, q).shape
    n, K = (builder.extract_value(shape, k) for k in (0, 1))
    last = builder.sub(n, INDEX(1))
    rows = [
        address(
            context,
            builder,
            signature.args[0],
            q,
            builder.select(builder.icmp_signed("<", INDEX(lane), n), INDEX(lane), last),
            INDEX(0),
        )
        for lane in range(LANES)
    ]
    whole = builder.sub(K, builder.srem(K, INDEX(LANES)))
    with cgutils.for_range_slice(builder, INDEX(0), whole, INDEX(LANES), inc=True) as (d, _):
        lines = transposed(builder, [load(builder, builder.gep(row, [d]), FLOATS) for row in rows])
        for k, line in enumerate(lines):
            store(
                builder, line, address(context, builder, signature.args[1], out, index_after(builder, d, k), INDEX(0))
            )
    with cgutils.for_range_slice(builder, whole, K, INDEX(1), inc=True) as (d, _):
        for lane, row in enumerate(rows):
            place = address(context, builder, signature.args[1], out, d, INDEX(lane))
            builder.store(builder.load(builder.gep(row, [d])), place)
    return context.get_dummy_value()


def scores_of_keys(q: Array, keys: Array, s: int, scale: float, out: Array) -> None:
    """Write `scale` times the dot products of queries in lanes, (K, LANES), and KEYS keys, from the s-th on, into the
    same rows of ``out``, (N, LANES).
    """
    out[s : s + KEYS] = keys[s : s + KEYS] @ q * scale


@emits(scores_of_keys, lambda q, keys, s, scale, out: types.void)
def _scores_of_keys(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    q, keys, s, scale, out = arguments
    of_q, of_keys, _, _, of_out = signature.args
    K = builder.extract_value(context.make_array(of_q)(context, builder, q).shape, 0)
    whole = builder.sub(K, builder.srem(K, INDEX(LANES)))
    first = address(context, builder, of_q, q, INDEX(0), INDEX(0))
    places = [address(context, builder, of_keys, keys, index_after(builder, s, k), INDEX(0)) for k in range(KEYS)]

    def add_one(d: Value, sums: list[Value]) -> list[Value]:
        mine = load(builder, builder.gep(first, [builder.mul(d, INDEX(LANES))]), FLOATS)
        each = [broadcast(builder, builder.load(builder.gep(place, [d])), FLOATS) for place in places]
        return [multiply_add(builder, one, mine, total) for one, total in zip(each, sums, strict=True)]

    def chains(lane: int) -> list[Value]:
        """Each key's sums of the lanes `lane`, `lane` + LANES // CHAINS and so on, added."""

        def add(d: Value, sums: list[Value]) -> list[Value]:
            added: list[Value] = []
            for chain in range(CHAINS):
                entry = index_after(builder, d, lane + chain * (LANES // CHAINS))
                added += add_one(entry, sums[chain * KEYS : chain * KEYS + KEYS])
            return added

        zeros = [ir.Constant(FLOATS, None)] * (CHAINS * KEYS)
        sums = accumulate(builder, zeros, INDEX(0), whole, INDEX(LANES), add)
        return [computed_here(builder, add_in_pairs(builder, sums[k::KEYS])) for k in range(KEYS)]

    def lanes(lane: int, step: int) -> list[Value]:
        """Each key's sum of every `step`-th lane from this one on."""
        if step == LANES // CHAINS:
            return chains(lane)
        both = lanes(lane, 2 * step), lanes(lane + step, 2 * step)
        return [builder.fadd(*pair) for pair in zip(*both, strict=True)]

    totals = accumulate(builder, lanes(0, 1), whole, K, INDEX(1), add_one)
    for k, total in enumerate(totals):
        place = address(context, builder, of_out, out, index_after(builder, s, k), INDEX(0))
        store(builder, builder.fmul(total, broadcast(builder, scale, FLOATS)), place)
    return context.get_dummy_value()


def softmax_terms(w: Array, S: int, sums: Array, totals: Array) -> None:
    """Replace scores by e^(score − largest), lane by lane, and write their sums into ``totals``, (LANES,).

    w is (S + LANES − 1, LANES): the i-th lane sees the first S + i rows, and the others become 0. ``sums`` is (LANES,
    LANES) of working memory.
    """
    hidden = np.arange(len(w))[:, None] >= S + np.arange(LANES)
    scores = np.where(hidden, -np.inf, w)
    w[:] = np.exp(scores - scores.max(axis=0))
    totals[:] = w.sum(axis=0)


@emits(softmax_terms, lambda w, S, sums, totals: types.void)
def _softmax_terms(context: Context, builder: Builder, signature: Signature, arguments: Values) -> Value:
    w, S, sums, totals = arguments
    first = address(context, builder, signature.args[0], w, INDEX(0), INDEX(0))
    N = builder.extract_value(context.make_array(signature.args[0])(context, builder, w).shape, 0)
    numbers = WORDS(list(range(LANES)))

    def row(s: Value) -> Value:
        return builder.gep(first, [builder.mul(s, INDEX(LANES))])

    def seen(s: Value) -> Value:
        behind = builder.trunc(builder.sub(s, S), ir.IntType(32))
        return builder.icmp_signed(">", numbers, broadcast(builder, behind, WORDS))

    def larger(s: Value, state: list[Value], masked: bool) -> list[Value]:
        score = load(builder, row(s), FLOATS)
        if masked:
            score = builder.select(seen(s), score, FLOATS([float("-inf")] * LANES))
        return [builder.select(builder.fcmp_ordered(">", score, state[0]), score, state[0])]

    best = [FLOATS([float("-inf")] * LANES)]
    best = accumulate(builder, best, INDEX(0), S, INDEX(1), lambda s, state: larger(s, state, False))
    (top,) = accumulate(builder, best, S, N, INDEX(1), lambda s, state: larger(s, state, True))

    lanes = [address(context, builder, signature.args[2], sums, INDEX(lane), INDEX(0)) for lane in range(LANES)]
    for lane in lanes:
        store(builder, ir.Constant(FLOATS, None), lane)

    def add(s: Value, masked: bool) -> None:
        one = exp_instructions(builder, builder.fsub(load(builder, row(s), FLOATS), top))
        if masked:
            one = builder.select(seen(s), one, ir.Constant(FLOATS, None))
        store(builder, one, row(s))
        lane = builder.gep(lanes[0], [builder.mul(builder.and_(s, INDEX(LANES - 1)), INDEX(LANES))])
        store(builder, builder.fadd(load(builder, lane, FLOATS), one), lane)

    with cgutils.for_range_slice(builder, INDEX(0), S, INDEX(1), inc=True) as (s, _):
        add(s, False)
    with cgutils.for_range_slice(builder, S, N, INDEX(1), inc=True) as (s, _):
        add(s, True)
    total = add_in_pairs(builder, [load(builder, lane, FLOATS) for lane in lanes])
    store(builder, total, address(context, builder, signature.args[3], totals, INDEX(0)))
    return context.get_dummy_value()

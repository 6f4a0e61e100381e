"""Attention of several queries gives each of them the bits that it gets alone; both ways of each kernel."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_bodies import both_ways, normal

from gpt2_np.engine.kernels import causal_attention, dot_products, exponential, query_lanes, weighted_values
from gpt2_np.engine.kernels.simd import LANES
from gpt2_np.model import ops

WIDTHS = [1, 3, 16, 18, 40, 64, 80]
SCALE = np.float32(0.125)


def side_by_side(q, out):
    query_lanes.queries_in_lanes(q, out)


@pytest.mark.parametrize("K", WIDTHS)
@pytest.mark.parametrize("n", [1, LANES - 3, LANES])
def test_queries_side_by_side(n: int, K: int) -> None:
    q = normal(n, 2 * K + 1)[:, K : 2 * K]
    for result in both_ways(side_by_side, q, np.zeros((K, LANES), np.float32)):
        np.testing.assert_array_equal(result, q[np.minimum(np.arange(LANES), n - 1)].T)


def scores_side_by_side(q, keys, out):
    query_lanes.scores_of_keys(q, keys, 2, SCALE, out)


def scores_alone(q, keys, out):
    for s in range(len(keys)):
        for lane in range(q.shape[1]):
            out[s, lane] = dot_products.dot(q.T.copy(), lane, keys, s, 0, len(q)) * SCALE


@pytest.mark.parametrize("K", WIDTHS)
def test_scores_of_queries_side_by_side(K: int) -> None:
    keys, q = normal(query_lanes.KEYS + 4, K), normal(K, LANES, seed=1)
    truth, alone = 0.125 * (keys.astype(np.float64) @ q.astype(np.float64)), np.empty((len(keys), LANES), np.float32)
    numba.njit(scores_alone)(q, keys, alone)
    here = slice(2, 2 + query_lanes.KEYS)
    plain, compiled = both_ways(scores_side_by_side, q, keys, np.full((len(keys), LANES), 7, np.float32))
    for result in (plain, compiled):
        np.testing.assert_allclose(result[here], truth[here], atol=5e-6)
        assert (np.delete(result, here, axis=0) == 7).all()
    np.testing.assert_array_equal(compiled[here], alone[here])


def terms_side_by_side(scores, S, sums, out):
    out[: len(scores)] = scores
    query_lanes.softmax_terms(out[: len(scores)], S, sums, out[len(scores)])


def terms_alone(scores, S, n, out):
    for lane in range(n):
        row = scores[: S + lane, lane : lane + 1].T.copy()
        count = S + lane
        out[-1, lane] = exponential.exp_and_sum(row, 0, count, exponential.largest(row, 0, count), row, 0)
        out[:count, lane] = row[0]


@pytest.mark.parametrize("n", [1, LANES - 3, LANES])
@pytest.mark.parametrize("S", [1, 5, 16, 31, 100])
def test_softmax_s_terms_of_queries_side_by_side(S: int, n: int) -> None:
    scores = 20 * normal(S + n - 1, LANES)
    exact = np.where(np.arange(S + n - 1)[:, None] < S + np.arange(LANES), scores.astype(np.float64), -np.inf)
    exact = np.exp(exact - exact.max(axis=0))
    alone = np.zeros((S + n, LANES), np.float32)
    numba.njit(terms_alone)(scores, S, n, alone)
    sums = np.empty((LANES, LANES), np.float32)
    plain, compiled = both_ways(terms_side_by_side, scores, S, sums, np.zeros((S + n, LANES), np.float32))
    for result in (plain, compiled):
        np.testing.assert_allclose(result[:-1], exact, rtol=3e-6, atol=1e-12)
        np.testing.assert_allclose(result[-1], exact.sum(axis=0), rtol=3e-6)
    np.testing.assert_array_equal(compiled[:, :n], alone[:, :n])


def sum_of_one(w, values, following, out):
    weighted_values.add_values_of_one(w, values, w.shape[1], following, out)


def sums_of_some(w, values, out):
    weighted_values.add_some_values(w, 1, values, 2, len(w), out)


def sum_of_lane(w, values, out):
    weighted_values.add_values(w, 1, values, 2, len(w), out)


@pytest.mark.parametrize("K", [1, 8, 16, 40, 64, 80, 131])
@pytest.mark.parametrize("S", [3, 5, 100])
def test_weighted_sums_of_values(S: int, K: int) -> None:
    w, values, start = np.exp(normal(S, LANES)), normal(S + 2, K, seed=1), normal(weighted_values.SUMS + 2, K, seed=2)
    truth = start[1:2] + w[2:, 1:2].T.astype(np.float64) @ values[2:S]
    results = [result[1] for result in both_ways(sums_of_some, w, values, start)]
    results += [result[1] for result in both_ways(sum_of_lane, w, values, start)]
    mine = np.ascontiguousarray(w[2:, 1:2].T)
    results += [result[0] for result in both_ways(sum_of_one, mine, values[2:], values, start[1:2])]
    for result in results:
        np.testing.assert_allclose(result, truth[0], rtol=2e-6, atol=1e-4)
    for compiled in results[3::2]:
        np.testing.assert_array_equal(compiled, results[1])
    some = both_ways(sums_of_some, w, values, start)[1]
    np.testing.assert_array_equal(np.delete(some, range(1, 1 + weighted_values.SUMS), axis=0), start[[0, -1]])


@given(B=st.integers(1, 3), T=st.integers(1, 70), past=st.integers(0, 140), K=st.sampled_from(WIDTHS))
@settings(max_examples=40, deadline=None)
def test_queries_attend_as_they_do_alone(B: int, T: int, past: int, K: int) -> None:
    N = past + B + T
    lengths = past + np.arange(B)
    q, keys, values = normal(B, T, 2, K), 3 * normal(B, 2, N, K, seed=1), normal(B, 2, N, K, seed=2)
    for b, length in enumerate(lengths):  # what isn't written yet is never read
        keys[b, :, length + T :] = values[b, :, length + T :] = np.nan
    together = causal_attention.attention(q, keys, values, lengths, 0.3)
    for t in {0, T // 2, T - 1}:
        alone = causal_attention.attention(q[:, t : t + 1], keys, values, lengths + t, 0.3)
        np.testing.assert_array_equal(together[:, t : t + 1], alone)
    for b, length in enumerate(lengths):
        seen = length + T
        truth = ops.attention(
            *(x[b : b + 1].astype(np.float64) for x in (q, keys[:, :, :seen], values[:, :, :seen])),
            lengths[b : b + 1],
            0.3,
        )
        np.testing.assert_allclose(together[b : b + 1], truth, atol=2e-5)


def test_a_later_value_that_overflowed_changes_no_earlier_query() -> None:
    q, keys, values = normal(1, 40, 1, 16), normal(1, 1, 40, 16, seed=1), normal(1, 1, 40, 16, seed=2)
    before = causal_attention.attention(q, keys, values, np.zeros(1, int), 0.25)
    keys[0, 0, 37], values[0, 0, 37] = np.nan, np.inf
    after = causal_attention.attention(q, keys, values, np.zeros(1, int), 0.25)
    np.testing.assert_array_equal(after[:, :37], before[:, :37])

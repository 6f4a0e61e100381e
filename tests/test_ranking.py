"""Order among scores: what is chosen is what a stable sort puts first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.base import ranking


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(1, 2000), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_highest_are_the_first_of_a_stable_sort(size: int, n: int, distinct: int, banned: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, distinct, size).astype(np.float32)
    values[rng.random(size) < banned] = -np.inf
    np.testing.assert_array_equal(ranking.highest(values, n), np.argsort(-values, kind="stable")[:n])


@pytest.mark.parametrize("n", [1, 10, 100])
def test_many_values_are_searched_by_stretches(n: int) -> None:
    values = np.random.default_rng(n).normal(size=251_285).astype(np.float32)
    values[-1] = values.max() + 1  # behind the last whole stretch
    np.testing.assert_array_equal(ranking.highest(values, n), np.argsort(-values, kind="stable")[:n])


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(1, 2000), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_what_reaches_the_nth_is_what_is_not_below_it(size: int, n: int, distinct: int, banned: float, seed: int):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, distinct, size).astype(np.float32)
    values[rng.random(size) < banned] = -np.inf
    least = np.sort(values)[-min(n, size)]
    assert ranking.nth(values, n) == least
    np.testing.assert_array_equal(ranking.reaching(values, n), np.flatnonzero(values >= least))
    assert np.count_nonzero(values >= ranking.lower_bound(values, n)) >= min(n, size)


@pytest.mark.parametrize("size", [10, 50_257])
def test_nan_is_not_below_the_nth(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    values[[3, 7]] = np.nan
    numbers = values[~np.isnan(values)]
    least = np.sort(numbers)[-5]
    assert ranking.nth(values, 5) == least
    np.testing.assert_array_equal(ranking.reaching(values, 5), np.flatnonzero(np.isnan(values) | (values >= least)))

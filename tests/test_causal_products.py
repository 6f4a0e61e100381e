"""Attention's kernels of gradient runs beside their formulas in float64, and on how many threads kernels run."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_bodies import both_ways
from threadpoolctl import threadpool_limits

from gpt2_np.engine.kernels.dynamic_schedule import next_piece
from gpt2_np.engine.kernels.threads import launch, over_rows
from gpt2_np.gradients import compiled, derivatives, joined_compiled
from gpt2_np.model import ops

Array = np.ndarray


def of_a_batch(B: int, T: int, H: int, K: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """A gradient, and queries, keys and values as they stand side by side: (B, T, H, K) each."""
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((B, T, 3, H, K), np.float32).transpose(2, 0, 1, 3, 4)
    return rng.standard_normal((B, T, H, K), np.float32), q, k, v


def forward(module, q: Array, k: Array, v: Array, scale: float) -> tuple[Array, Array, Array]:
    scores = module.attention_scores(q, k.swapaxes(1, 2), np.zeros(len(q), np.int64), scale)
    pattern = module.softmax(scores)
    return scores, pattern, module.mix_values(pattern, v.swapaxes(1, 2))


@given(st.integers(1, 2), st.integers(1, 300), st.integers(1, 3), st.integers(1, 140), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_attention_forward_and_backward(B: int, T: int, H: int, K: int, seed: int) -> None:
    arrays, scale = of_a_batch(B, T, H, K, seed), K**-0.5
    wide = [one.astype(np.float64) for one in arrays]
    expected, found = forward(ops, *wide[1:], scale), forward(joined_compiled, *arrays[1:], scale)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=2e-6 * max(1, K**0.5), rtol=1e-6)
    pattern = found[1]
    expected = derivatives.attention(*wide, pattern.astype(np.float64), scale)
    found = compiled.attention(*arrays, pattern, scale)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6 * max(1, np.abs(other).max()))
    np.testing.assert_array_equal(compiled.split_heads(*found), derivatives.split_heads(*found))


def test_the_bits_are_the_same_for_any_number_of_threads() -> None:
    arrays = of_a_batch(2, 200, 3, 64, 0)
    found = []
    for workers in (1, 2):
        with threadpool_limits(workers, user_api="blas"):
            scores, pattern, z = forward(joined_compiled, *arrays[1:], 0.125)
            found.append([scores, pattern, z, *compiled.attention(*arrays, pattern, 0.125)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_of_heads_that_do_not_stand_side_by_side_are_copied() -> None:
    g, q, k, v = of_a_batch(2, 5, 3, 4, 0)
    for parts in ((q, k, v), (k, q, v), (g, q, k), (q, q, q), tuple(np.ascontiguousarray(one) for one in (q, k, v))):
        joined = compiled.split_heads(*parts)
        np.testing.assert_array_equal(joined, derivatives.split_heads(*parts))
        assert np.shares_memory(joined, parts[0]) == (parts[0] is q and parts[1] is k)


@pytest.mark.parametrize("workers", [1, 2, 99])
def test_a_kernel_runs_on_so_many_threads(workers: int) -> None:
    before, seen = numba.get_num_threads(), []
    launch(lambda: seen.append(numba.get_num_threads()), workers=workers)
    assert (seen, numba.get_num_threads()) == ([min(workers, before)], before)
    with pytest.raises(ZeroDivisionError):
        launch(lambda: 1 / 0, workers=workers)
    assert numba.get_num_threads() == before


def test_only_large_arrays_wake_other_threads() -> None:
    called: list[str] = []
    for size, workers in ((10, 2), (1 << 20, 1), (1 << 20, 2)):
        over_rows(lambda x: called.append("one"), lambda x: called.append("all"), np.empty(size), workers=workers)
    assert called == ["one", "one", "all" if numba.get_num_threads() > 1 else "one"]


def numbered(out: Array) -> None:
    taken = np.zeros(1, np.int64)
    for n in range(len(out)):
        out[n] = next_piece(taken)


def test_every_piece_is_taken_once() -> None:
    for found in both_ways(numbered, np.empty(5, np.int64)):
        assert found.tolist() == [0, 1, 2, 3, 4]

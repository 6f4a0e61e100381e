"""`ops` in pieces on threads: the same bits where positions stand apart, the same sums where BLAS adds."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from gpt2_np import ops, threaded

RNG = np.random.default_rng(0)
DTYPES = (np.float32, np.float64)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "CACHED", 64)
    monkeypatch.setattr(threaded, "PRODUCT", 128)
    monkeypatch.setattr(threaded, "_threads", lambda: 3)


def normal(dtype: type, *shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def test_every_operation_is_here_under_its_name() -> None:
    used = {"activate", "attention", "attention_scores", "layer_norm", "layer_norm_scale", "linear", "mix_values",
            "softmax", "split_heads", "unembed"}  # fmt: skip
    assert set(threaded.__all__) == used
    assert all(hasattr(ops, name) for name in used)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_what_treats_positions_apart_gives_the_same_bits(dtype: type, B: int, T: int, D: int) -> None:
    x, weight, bias = normal(dtype, B, T, D), normal(dtype, D), normal(dtype, D)
    for ours, theirs in (
        (threaded.softmax(x), ops.softmax(x)),
        (threaded.activate(x, "gelu_new"), ops.activate(x, "gelu_new")),
        (threaded.layer_norm(x, weight, bias, 1e-5), ops.layer_norm(x, weight, bias, 1e-5)),
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 5), st.integers(1, 5), st.integers(1, 8))
def test_products_and_attention(dtype: type, B: int, T: int, before: int, H: int, K: int) -> None:
    x, weight, bias = normal(dtype, B, T, H * K), normal(dtype, H * K, 50), normal(dtype, 50)
    q, k, v = normal(dtype, B, T, H, K), normal(dtype, B, H, before + T, K), normal(dtype, B, H, before + T, K)
    lengths = RNG.integers(0, before + 1, B)
    lengths[0] = before
    scores, pattern = ops.attention_scores(q, k, lengths, 0.3), ops.softmax(ops.attention_scores(q, k, lengths, 0.3))
    for ours, theirs in (
        (threaded.linear(x, weight, bias), ops.linear(x, weight, bias)),
        (threaded.unembed(x, weight.T), ops.unembed(x, weight.T)),
        (threaded.attention_scores(q, k, lengths, 0.3), scores),
        (threaded.mix_values(pattern, v), ops.mix_values(pattern, v)),
        (threaded.attention(q, k, v, lengths, 0.3), ops.attention(q, k, v, lengths, 0.3)),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 if dtype == np.float32 else 1e-14)
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_has_the_bits_of_its_steps(dtype: type) -> None:
    """So that a run in which the pattern is captured gives the logits of one in which it isn't."""
    q, k, v = normal(dtype, 2, 33, 5, 8), normal(dtype, 2, 5, 40, 8), normal(dtype, 2, 5, 40, 8)
    lengths = np.array([7, 3])
    steps = threaded.mix_values(threaded.softmax(threaded.attention_scores(q, k, lengths, 0.3)), v)
    np.testing.assert_array_equal(threaded.attention(q, k, v, lengths, 0.3), steps)


def test_an_error_in_a_piece_is_raised_and_the_next_call_works() -> None:
    with pytest.raises(KeyError, match="nothing"):
        threaded.activate(normal(np.float32, 40, 40), "nothing")
    with pytest.raises(IndexError):
        threaded._by_rows(lambda some: some[99], normal(np.float32, 40, 40))
    x = normal(np.float32, 40, 40)
    np.testing.assert_array_equal(threaded.softmax(x), ops.softmax(x))


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_runs_beside_each_other_leave_blas_as_it_was() -> None:
    x = normal(np.float32, 64, 64)
    with threadpool_limits(3, "blas"):
        before = blas_threads()
        with ThreadPoolExecutor(4) as pool:
            for result in pool.map(lambda _: threaded.linear(x, x, x[0]), range(200)):
                np.testing.assert_allclose(result, ops.linear(x, x, x[0]), atol=1e-4)
        assert blas_threads() == before


def in_child() -> None:
    threaded.softmax(np.ones((64, 64), np.float32))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="only where processes fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    in_child()
    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert child.exitcode == 0

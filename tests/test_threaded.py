"""`ops` in pieces on threads: the same bits."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_np.engine import threaded
from gpt2_np.model import ops

RNG = np.random.default_rng(0)
DTYPES = (np.float32, np.float64)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "CACHED", 64)
    monkeypatch.setattr(threaded, "threads", lambda: 3)


def normal(dtype: type, *shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def test_every_operation_is_here_under_its_name() -> None:
    used = {
        "activate",
        "attention",
        "attention_scores",
        "centred",
        "layer_norm",
        "layer_norm_scale",
        "linear",
        "mix_values",
        "scaled_and_shifted",
        "softmax",
        "split_heads",
        "unembed",
    }
    assert all(callable(getattr(threaded, name)) for name in used)
    assert threaded.split_heads is ops.split_heads
    with pytest.raises(AttributeError, match="nothing"):
        threaded.nothing  # noqa: B018


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_what_treats_positions_apart_gives_the_same_bits(dtype: type, B: int, T: int, D: int) -> None:
    x, weight, bias, square = normal(dtype, B, T, D), normal(dtype, D), normal(dtype, D), normal(dtype, D, D)
    for ours, theirs in (
        (threaded.softmax(x), ops.softmax(x)),
        (threaded.activate(x, "gelu_new"), ops.activate(x, "gelu_new")),
        (threaded.layer_norm(x, weight, bias, 1e-5), ops.layer_norm(x, weight, bias, 1e-5)),
        (threaded.centred(x), ops.centred(x)),
        (threaded.layer_norm_scale(x, 1e-5), ops.layer_norm_scale(x, 1e-5)),
        (threaded.scaled_and_shifted(x, weight, bias), ops.scaled_and_shifted(x, weight, bias)),
        (threaded.linear(x, square, bias), ops.linear(x, square, bias)),
        (threaded.unembed(x, square), ops.unembed(x, square)),
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_has_the_bits_of_its_steps(dtype: type) -> None:
    """So that a run in which the pattern is captured gives the logits of one in which it isn't."""
    q, k, v = normal(dtype, 2, 33, 5, 8), normal(dtype, 2, 5, 40, 8), normal(dtype, 2, 5, 40, 8)
    lengths = np.array([7, 3])
    scores = threaded.attention_scores(q, k, lengths, 0.3)
    np.testing.assert_array_equal(scores, ops.attention_scores(q, k, lengths, 0.3))
    steps = threaded.mix_values(threaded.softmax(threaded.attention_scores(q, k, lengths, 0.3)), v)
    np.testing.assert_array_equal(threaded.attention(q, k, v, lengths, 0.3), steps)
    np.testing.assert_array_equal(steps, ops.attention(q, k, v, lengths, 0.3))


def test_an_error_in_a_piece_is_raised_and_the_next_call_works() -> None:
    with pytest.raises(KeyError, match="nothing"):
        threaded.activate(normal(np.float32, 40, 40), "nothing")
    with pytest.raises(IndexError):
        threaded.by_rows(lambda some: some[99], normal(np.float32, 40, 40))
    x = normal(np.float32, 40, 40)
    np.testing.assert_array_equal(threaded.softmax(x), ops.softmax(x))


def test_runs_beside_each_other() -> None:
    x = normal(np.float32, 64, 64)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: threaded.softmax(x), range(200)):
            np.testing.assert_array_equal(result, ops.softmax(x))


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

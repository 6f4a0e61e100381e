"""What other engines have and transformers hasn't: each against its definition, computed in the plainest way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fuzz_options import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processors import scores, up_to_ties

from decoders import Options, generate
from decoders.processors import mlx_lm
from decoders.processors.repetition_detection import RepetitionDetection
from decoders.processors.smoothing import Smoothing
from decoders.processors.synthid import SynthID, SynthIDDetector, SynthIDTextWatermarkingConfig
from decoders.processors.tail_free import TailFree
from decoders.processors.top_a import TopA
from decoders.processors.xtc import XTC


def top_a(values: torch.Tensor, a: float) -> torch.Tensor:
    p = values.softmax(-1)
    return values.masked_fill(p < a * p.max() ** 2, -np.inf)


def tail_free(values: torch.Tensor, z: float) -> torch.Tensor:
    """Sorted, differenced twice, summed up; what is at the edge of a second difference belongs to its middle."""
    ordered, places = values.sort(descending=True, stable=True)
    bends = ordered.softmax(-1).diff().diff().abs()
    share = (bends / bends.sum()).cumsum(-1)
    out = values.clone()
    out[places[1:-1][share > z]] = -np.inf
    out[places[-1]] = -np.inf
    return out


def smoothing(values: torch.Tensor, x: float) -> torch.Tensor:
    far = values - values.max()
    bent = values.max() + x * (far**3 * (3 * x - 1) / 2 - far**2 * (3 - 3 * x) / 2)
    return torch.where(values > -np.inf, bent, values)


@pytest.mark.parametrize(("ours", "reference"), [(TopA, top_a), (TailFree, tail_free)])
@given(values=scores(1), x=st.floats(0.01, 0.99))
@settings(max_examples=150, deadline=None)
def test_the_same_tokens_are_kept(ours, reference, values: np.ndarray, x: float) -> None:
    up_to_ties(ours(x)([], values)[0], reference(torch.tensor(values[0]), x).numpy(), values[0])


@pytest.mark.parametrize(("ours", "reference"), [(TopA, top_a), (TailFree, tail_free)])
def test_the_same_tokens_are_kept_at_the_published_vocabulary(ours, reference) -> None:
    random = np.random.default_rng(0)
    for x in (0.1, 0.5, 0.9):
        values = random.standard_normal((1, 50257), np.float32) * random.choice([1, 3, 6])
        expected = reference(torch.tensor(values[0]), x).numpy()
        assert np.mean((ours(x)([], values)[0] > -np.inf) != (expected > -np.inf)) <= 4 / 50257


@pytest.mark.parametrize("kind", [TopA, TailFree])
@given(values=scores(2), keep=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_so_many_stay(kind, values: np.ndarray, keep: int) -> None:
    kept, there = (np.count_nonzero(one > -np.inf, axis=-1) for one in (kind(0.1, keep)([], values), values))
    assert (kept >= np.minimum(keep, there)).all()


def test_tail_free_where_nothing_bends() -> None:
    assert (TailFree(0.5)([], np.zeros((1, 5), np.float32)) == 0).sum() == 4  # the last never stays
    assert (TailFree(0.5)([], np.zeros((1, 1), np.float32)) == 0).all()


@given(values=st.lists(st.floats(-20, 20, width=32) | st.just(-np.inf), min_size=3, max_size=9), x=st.floats(1 / 3, 3))
@settings(max_examples=150, deadline=None)
def test_smoothing_is_its_polynomial(values: list[float], x: float) -> None:
    row = np.array([[*values, 1.0]], np.float32)
    expected = smoothing(torch.tensor(row[0], dtype=torch.float64), x).numpy()
    np.testing.assert_allclose(Smoothing(x, 3 * x)([], row)[0], expected, rtol=1e-4, atol=1e-3)


def test_a_special_token_holds_the_others_back() -> None:
    row = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    for special, left in [((), [2, 3]), ((3,), [2, 3]), ((2,), [2, 3]), ((1,), [0, 1, 2, 3]), ((3, 0), [0, 1, 2, 3])]:
        out = XTC(1.0, 0.15, lambda: 0.0, 1, special)([], row)
        assert np.flatnonzero(out[0] > -np.inf).tolist() == left
    # In mlx-lm it alone stays.
    out = mlx_lm.XTC(1.0, 0.15, lambda: 0.0, (1,))([], row)
    assert np.flatnonzero(out[0] > -np.inf).tolist() == [1, 2, 3]


def tournament(p: np.ndarray, g: np.ndarray, leaves: int) -> np.ndarray:
    """Every draw of so many leaves, and a winner among those with the highest bit, each equally likely."""
    out = np.zeros_like(p)
    for drawn in itertools.product(range(len(p)), repeat=leaves):
        best = [token for token in drawn if g[token] == max(g[list(drawn)])]
        for token in best:
            out[token] += np.prod(p[list(drawn)]) / len(best)
    return out


@pytest.mark.parametrize("leaves", [2, 3])
def test_synthid_is_a_tournament_of_so_many_leaves(leaves: int) -> None:
    random = np.random.default_rng(0)
    config = SynthIDTextWatermarkingConfig(ngram_len=3, keys=(5, 6, 7), num_leaves=leaves, context_history_size=0)
    for _ in range(9):
        text, row = random.integers(1, 5, 4), random.standard_normal((1, 5)).astype(np.float32)
        p = np.exp(row[0].astype(np.float64))
        p /= p.sum()
        grams = [[*text[-2:], token] for token in range(5)]
        for g in np.concatenate([SynthIDDetector(config).g_values(gram) for gram in grams]).T:
            p = tournament(p, g, leaves)
        out = SynthID(config, 1)([text], row)[0]
        np.testing.assert_allclose(np.exp(out), p, rtol=1e-4, atol=1e-6)


def test_num_leaves_is_two_or_three() -> None:
    with pytest.raises(ValueError, match=r"num_leaves must be 2 or 3, got 4$"):
        Options(watermarking_config={"ngram_len": 3, "keys": [1], "num_leaves": 4})
    assert Options(watermarking_config={"ngram_len": 3, "keys": [1], "num_leaves": 3})


@given(
    new=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    sizes=st.tuples(st.integers(1, 4), st.integers(0, 3)),
    count=st.integers(2, 4),
)
@settings(max_examples=300, deadline=None)
def test_a_repetition_is_what_vllm_calls_one(new: list[int], sizes: tuple[int, int], count: int) -> None:
    """Token by token: each of the pattern's ids is the same in every earlier copy of it."""
    shortest, longest = sizes[0], sum(sizes)
    expected = any(
        size * count <= len(new)
        and all(new[-n] == new[-(size * m + n)] for n in range(1, size + 1) for m in range(1, count))
        for size in range(shortest, longest + 1)
    )
    assert RepetitionDetection(longest, shortest, count)([9, 9], new) == expected


def test_a_text_that_goes_round_in_circles_ends() -> None:
    (plain,) = generate(Table(), [[1, 2]], Options(max_new_tokens=40))
    (ended,) = generate(Table(), [[1, 2]], Options(max_new_tokens=40, max_pattern_size=20, min_count=2))
    assert (plain.finish_reason, ended.finish_reason) == ("length", "stop")
    assert ended.ids == plain.ids[: len(ended.ids)]
    stops = RepetitionDetection(20)
    assert [stops([], plain.ids[:n]) for n in range(1, len(ended.ids) + 1)] == [False] * (len(ended.ids) - 1) + [True]
    with pytest.raises(ValueError, match=r"^min_pattern_size must be at most max_pattern_size \(2\), got 3$"):
        Options(max_pattern_size=2, min_pattern_size=3)

"""llama.cpp's samplers against llama.cpp's own, and against the answers in its tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options
from decoders.base.ranking import ascending, best, descending
from decoders.generate import chain
from decoders.processors import llama_cpp as L
from decoders.processors.adaptive_p import AdaptiveP
from decoders.processors.dry import DRY
from decoders.processors.mirostat import MirostatV1, MirostatV2
from decoders.processors.penalties import RecentPenalty
from decoders.processors.temperature import DynamicTemperature, Temperature
from decoders.processors.top_n_sigma import TopNSigma
from decoders.processors.values import Renormalize
from decoders.processors.xtc import XTC

GOLDEN = json.loads((Path(__file__).parent / "golden/llama_cpp.json").read_text())
ROWS = [np.array(row, np.float32) for row in GOLDEN["rows"]]
BUILD = {
    "top_k": L.TopK,
    "top_p": L.TopP,
    "min_p": L.MinP,
    "typical_p": L.Typical,
    "top_n_sigma": TopNSigma,
    "dynatemp": DynamicTemperature,
    "xtc": lambda threshold, keep: XTC(1.0, threshold, lambda: 0.5, keep),
}


def call(processor, row, text=()) -> np.ndarray:
    """A processor on one row of scores, which it must leave as it was."""
    scores = np.array([row], np.float32)
    before = scores.copy()
    out = processor([np.array(text, np.int64)], scores)
    np.testing.assert_array_equal(scores, before)
    assert out.dtype == np.float32
    return out[0]


def left(row: np.ndarray) -> list[int]:
    return np.flatnonzero(row > -np.inf).tolist()


@pytest.mark.parametrize("name", BUILD)
def test_what_llama_cpp_keeps(name: str) -> None:
    cases = [case for case in GOLDEN["simple"] if case["sampler"] == name]
    assert len(cases) >= 30
    for case in cases:
        row, setting = ROWS[case["row"]], [int(one) if float(one).is_integer() else one for one in case["setting"]]
        out = call(BUILD[name](*setting), row)
        assert left(out) == case["ids"], case
        np.testing.assert_allclose(out[case["ids"]], case.get("scores", row[case["ids"]]), rtol=1e-5)


def test_penalties_over_the_last_n() -> None:
    for case in GOLDEN["penalties"]:
        out = call(RecentPenalty(*case["setting"]), ROWS[case["row"]], case["text"])
        np.testing.assert_allclose(out, case["scores"], rtol=1e-6, atol=1e-6)


def test_dry() -> None:
    penalised = 0
    for case in GOLDEN["dry"]:
        multiplier, base, allowed, last_n = case["setting"]
        breakers = tuple((token,) for token in case["breakers"])
        dry = DRY(multiplier, base, int(allowed), int(last_n), breakers)
        out = call(dry, np.zeros(400), case["text"])
        changed = {str(token): out[token] for token in np.flatnonzero(out != 0).tolist()}
        changed = {token: score for token, score in changed.items() if np.isfinite(score)}
        assert changed == pytest.approx(case["changed"], rel=1e-5), case
        penalised += len(changed)
    assert penalised > 30


@pytest.mark.parametrize("number", range(len(GOLDEN["mirostat"])))
def test_mirostat_follows_llama_cpp_s_draws(number: int) -> None:
    case = GOLDEN["mirostat"][number]
    sampler = {1: MirostatV1, 2: MirostatV2}[case["version"]](1, case["tau"], case["eta"])
    text = [0]
    for step in case["steps"]:
        assert left(call(sampler, step["row"], text)) == step["ids"]
        text.append(step["drawn"])


@pytest.mark.parametrize("case", GOLDEN["adaptive_p"]["cases"], ids=lambda case: f"{case['target']}")
def test_adaptive_p_follows_llama_cpp_s_draws(case) -> None:
    sampler, text = AdaptiveP(1, case["target"], case["decay"]), [0]
    for step in case["steps"]:
        row = np.array(step["row"], np.float32)
        row = call(L.MinP(case["min_p"]), row) if case["min_p"] else row
        out = call(sampler, row, text)
        assert left(out) == step["ids"]
        np.testing.assert_allclose(out[step["ids"]], step["scores"], rtol=1e-4, atol=2e-5)
        text.append(step["drawn"])


def test_adaptive_p_is_last_wherever_it_stands() -> None:
    options = Options(profile="llama.cpp", do_sample=True, adaptive_target=0.3)
    assert [named.option for named in chain(options, 0, 1, 9)][-1] == "adaptive_target"
    options = Options(do_sample=True, adaptive_target=0.3, min_p=0.1, watermarking_config={})
    assert [named.option for named in chain(options, 0, 1, 9)][-1] == "adaptive_target"
    with pytest.raises(ValueError, match=r"^order must name adaptive_target last of all samplers, got \['adaptive"):
        Options(do_sample=True, adaptive_target=0.3, min_p=0.1, order=["adaptive_target", "min_p"])
    with pytest.raises(ValueError, match="adaptive_target must see a text grow by one id at a time, got \\[0, 1, 1\\]"):
        AdaptiveP(1, 0.5)([np.array([0, 1, 1])], np.zeros((1, 3), np.float32))


def test_adaptive_p_brings_nothing_back() -> None:
    """Also where another processor says "never" with the lowest number."""
    lowest = np.finfo(np.float32).min
    out = call(AdaptiveP(1, 0.0), [lowest, 1.0, -np.inf, 0.0], [0])
    assert out[[0, 2]].tolist() == [lowest, -np.inf]
    assert out[3] > out[1]


def test_mirostat_wants_one_id_at_a_time() -> None:
    sampler = MirostatV2(1)
    call(sampler, [0.0, 1.0], [0])
    with pytest.raises(ValueError, match="mirostat must see a text grow by one id at a time, got \\[0, 1, 1\\]"):
        call(sampler, [0.0, 1.0], [0, 1, 1])


@pytest.mark.parametrize("sampler", [MirostatV1, MirostatV2])
@given(
    row=st.lists(st.sampled_from([-np.inf, -100.0, 0.0, 1.0, 100.0]), min_size=2, max_size=9), tau=st.floats(0.01, 50)
)
@settings(max_examples=60, deadline=None)
def test_mirostat_keeps_the_best_whatever_comes(sampler, row: list[float], tau: float) -> None:
    row[0] = 100.0
    assert call(sampler(1, tau, 0.1), row, [0])[0] == 100


def test_the_default_chain() -> None:
    for case in GOLDEN["chains"]:
        s, row = case["setting"], ROWS[case["row"]]
        chain = [
            L.TopK(int(s["top_k"])),
            L.Typical(s["typical_p"]),
            L.TopP(s["top_p"]),
            L.MinP(s["min_p"]),
            Temperature(s["temperature"]),
        ]
        for processor in ([TopNSigma(s["top_n_sigma"])] if s["top_n_sigma"] > 0 else []) + chain:
            row = call(processor, row)
        assert left(row) == case["ids"]
        np.testing.assert_allclose(row[case["ids"]], case["scores"], rtol=1e-5)


# The answers in llama.cpp's tests/test-sampling.cpp.
FOUR = [0.1, 0.2, 0.3, 0.4]
ANSWERS = [
    (L.TopK(1), FOUR, [0, 0, 0, 1]),
    (L.TopK(3), FOUR, [0, 0.22222, 0.33333, 0.44444]),
    (L.TopP(0.7), FOUR, [0, 0, 0.428571, 0.571429]),
    (L.TopP(0.8), FOUR, [0, 0.222222, 0.333333, 0.444444]),
    (L.MinP(0.26), FOUR, [0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9]),
    (TopNSigma(1.0), FOUR, [0, 0, 0.428571, 0.571429]),
    (TopNSigma(3.0), FOUR, FOUR),
    (L.Typical(0.5), [0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]),
    (L.Typical(0.5), [0.4, 0.2, 0.2, 0.2], [0, 1 / 3, 1 / 3, 1 / 3]),
    (XTC(0.99, 0.09, lambda: 0.5), [0.4, 0.3, 0.2, 0.1], [0, 0, 0, 1]),
    (XTC(0.99, 0.19, lambda: 0.5), [0.4, 0.3, 0.2, 0.1], [0, 0, 2 / 3, 1 / 3]),
    (XTC(0.99, 0.29, lambda: 0.5), [0.4, 0.3, 0.2, 0.1], [0, 0.5, 1 / 3, 1 / 6]),
    (XTC(0.99, 0.39, lambda: 0.5), [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]),
]


@pytest.mark.parametrize(("processor", "p", "expected"), ANSWERS, ids=range(len(ANSWERS)))
def test_llama_cpp_s_own_answers(processor, p: list[float], expected: list[float]) -> None:
    out = call(processor, np.log(np.array(p, np.float32)))
    np.testing.assert_allclose(np.exp(Renormalize()([], out[None])[0]), expected, atol=1e-5)


def test_llama_cpp_s_own_answer_for_dry() -> None:
    out = call(DRY(1.0, 1.1, 2, 5), np.log([0.25] * 4), [0, 1, 2, 0, 1])
    expected = [0.296923, 0.296923, 0.109232, 0.296923]
    np.testing.assert_allclose(np.exp(Renormalize()([], out[None])[0]), expected, atol=1e-5)


def naive(text: list[int], dry: DRY) -> dict[int, int]:
    """DRY from its definition: every place that ends as the text ends, compared id by id."""
    limit = len(text)
    for start in range(len(text)):
        for breaker in dry.breakers:
            if text[start : start + len(breaker)] == list(breaker):
                limit = min(limit, len(text) - start - len(breaker))
    found: dict[int, int] = {}
    if limit < dry.allowed_length or len(text) <= dry.allowed_length:
        return found
    for end in range(len(text) - 1):
        length = 0
        while length < limit and length <= end and text[end - length] == text[-1 - length]:
            length += 1
        if length >= dry.allowed_length:
            found[text[end + 1]] = max(found.get(text[end + 1], 0), length)
    return found


words = st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple)


@given(
    text=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    allowed=st.integers(0, 4),
    breakers=st.lists(words, max_size=2, unique_by=lambda word: word[0]),
)
@settings(max_examples=200, deadline=None)
def test_dry_is_what_its_definition_says(text, allowed, breakers) -> None:
    dry = DRY(1.0, 2.0, allowed, None, tuple(breakers))
    assert dry.longest(np.array(text)) == naive(text, dry)


def test_the_coin_decides() -> None:
    coins = iter([0.9, 0.1])
    xtc = XTC(0.5, 0.1, lambda: next(coins))
    out = xtc([], np.array([[0.4, 0.6], [0.4, 0.6], [1.0, -np.inf]], np.float32))
    assert [left(row) for row in out] == [[0, 1], [0], [0]]  # the last has no choice, so no coin is thrown


values = st.sampled_from([-np.inf, -1e30, -3.5, -0.0, 0.0, 1.0, 1.0, 2.0, 1e30]) | st.floats(-20, 20, width=32)


@given(row=st.lists(values, min_size=1, max_size=20), n=st.integers(1, 25))
@settings(max_examples=200, deadline=None)
def test_ranking_is_a_stable_sort(row: list[float], n: int) -> None:
    scores = np.array(row, np.float32)
    assert ascending(scores).tolist() == np.argsort(scores, kind="stable").tolist()
    assert descending(scores).tolist() == np.argsort(-scores, kind="stable").tolist()
    assert np.flatnonzero(best(scores, n)).tolist() == sorted(np.argsort(-scores, kind="stable")[:n].tolist())


KEEPING = [
    L.TopK(2),
    L.TopP(0.4),
    L.TopP(0.4, 3),
    L.MinP(0.5),
    L.MinP(0.5, 3),
    L.Typical(0.3),
    L.Typical(0.3, 3),
    TopNSigma(0.5),
    XTC(1.0, 0.1, lambda: 0.0),
    DynamicTemperature(1.0, 1.0),
]


@pytest.mark.parametrize("processor", KEEPING, ids=range(len(KEEPING)))
@given(
    rows=st.lists(
        st.lists(st.sampled_from([-np.inf, -1e4, -2.0, 0.0, 1.0, 3.0, 1e4]), min_size=6, max_size=6),
        min_size=1,
        max_size=3,
    ),
    there=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_row_keeps_a_token_and_brings_none_back(processor, rows, there: int) -> None:
    scores = np.array(rows, np.float32)
    scores[:, there] = 0.5
    before = scores.copy()
    out = processor([], scores)
    np.testing.assert_array_equal(scores, before)
    assert (out > -np.inf).any(axis=-1).all()
    assert not (out[scores == -np.inf] > -np.inf).any()
    for row, alone in zip(out, scores, strict=True):
        np.testing.assert_array_equal(row, processor([], alone[None])[0])
    keep = getattr(processor, "min_tokens_to_keep", 1)
    kept, possible = (np.count_nonzero(one > -np.inf, axis=-1) for one in (out, scores))
    assert (kept >= np.minimum(keep, possible)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: L.TopK(0), "top_k must be a whole number of at least 1, got 0"),
        (lambda: L.TopP(1.5), "top_p must be in \\(0, 1\\], got 1.5"),
        (lambda: L.MinP(2), "min_p must be in \\[0, 1\\], got 2"),
        (lambda: L.TopP(0.5, 0), "min_tokens_to_keep must be at least 1, got 0"),
        (lambda: TopNSigma(0), "top_n_sigma must be above 0, got 0"),
        (lambda: XTC(2, 0.1, lambda: 0.0), "xtc_probability must be in \\[0, 1\\], got 2"),
        (lambda: DynamicTemperature(1, 0), "dynatemp_range must be above 0, got 0"),
        (lambda: DRY(0), "dry_multiplier must be above 0, got 0"),
        (lambda: DRY(1, 0.5), "dry_base must be at least 1, got 0.5"),
        (lambda: RecentPenalty(0), "penalty_last_n must be at least 1, or -1, got 0"),
        (lambda: MirostatV1(1, tau=0), "mirostat_tau must be above 0, got 0"),
    ],
)
def test_what_cannot_be_is_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        build()

"""Every warper and processor against transformers' own class on the same scores: ties, −inf, extremes, rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from decoders.processors.bias import SequenceBias, bad_words
from decoders.processors.cutoffs import EpsilonCutoff, EtaCutoff
from decoders.processors.encoder import EncoderNoRepeatNgram, EncoderRepetitionPenalty
from decoders.processors.forced import ForcedBOS, ForcedEOS
from decoders.processors.lengths import ExponentialDecayLengthPenalty, MinLength
from decoders.processors.min_p import MinP
from decoders.processors.no_repeat_ngram import NoRepeatNgram
from decoders.processors.penalties import OccurrencePenalty, RepetitionPenalty
from decoders.processors.prefix_allowed import PrefixAllowedTokens
from decoders.processors.suppress import Suppress, SuppressAtBegin
from decoders.processors.temperature import Temperature
from decoders.processors.top_h import TopH
from decoders.processors.top_k import TopK
from decoders.processors.top_p import TopP
from decoders.processors.typical_p import Typical
from decoders.processors.values import RemoveInvalid, Renormalize

EOS = (2, 5)
V = 12


@st.composite
def scores(draw: st.DrawFn, rows: int) -> np.ndarray:
    """(rows, V) float32 scores, of few distinct values so that they tie, some of them −inf or extreme."""
    values = st.sampled_from([-np.inf, -1e4, -3.5, -1.0, 0.0, 0.25, 1.0, 2.0, 7.5, 1e4]) | st.floats(-20, 20, width=32)
    out = np.array(draw(st.lists(st.lists(values, min_size=V, max_size=V), min_size=rows, max_size=rows)), np.float32)
    out[:, draw(st.integers(0, V - 1))] = draw(st.floats(-5, 5, width=32))
    return out


@st.composite
def inputs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(rows, length) ids so far and (rows, V) scores."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    ids = np.array(
        draw(st.lists(st.lists(st.integers(0, V - 1), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    return ids, draw(scores(rows))


def compare(
    ours, reference, ids: np.ndarray, values: np.ndarray, same: Callable | None = None, atol: float = 1e-6
) -> None:
    before = values.copy()
    mine = ours(list(ids), values)
    np.testing.assert_array_equal(values, before)
    expected = reference(torch.tensor(ids), torch.tensor(values)).numpy()
    assert mine.dtype == np.float32
    if same is None:
        np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=atol)
    else:
        for row, theirs_row, source in zip(mine, expected, values, strict=True):
            same(row, theirs_row, source)


EXACT = {
    "temperature": (lambda n: Temperature(0.3 + n), lambda n: theirs.TemperatureLogitsWarper(0.3 + n)),
    "top_k": (lambda n: TopK(1 + n), lambda n: theirs.TopKLogitsWarper(1 + n)),
    "top_k of two": (lambda n: TopK(1, 2), lambda n: theirs.TopKLogitsWarper(1, min_tokens_to_keep=2)),
    "repetition": (lambda n: RepetitionPenalty(0.5 + n), lambda n: theirs.RepetitionPenaltyLogitsProcessor(0.5 + n)),
    "no repeat": (lambda n: NoRepeatNgram(1 + n % 4), lambda n: theirs.NoRepeatNGramLogitsProcessor(1 + n % 4)),
    "repetition without a start": (
        lambda n: RepetitionPenalty(1.7, n),
        lambda n: theirs.RepetitionPenaltyLogitsProcessor(1.7, prompt_ignore_length=n),
    ),
    "min length": (lambda n: MinLength(n, EOS), lambda n: theirs.MinLengthLogitsProcessor(n, list(EOS))),
    "min new": (lambda n: MinLength(2 + n, EOS), lambda n: theirs.MinNewTokensLengthLogitsProcessor(2, n, list(EOS))),
    "forced bos": (lambda n: ForcedBOS(n), lambda n: theirs.ForcedBOSTokenLogitsProcessor(n)),
    "forced eos": (lambda n: ForcedEOS(1 + n, EOS), lambda n: theirs.ForcedEOSTokenLogitsProcessor(1 + n, list(EOS))),
    "suppress": (lambda n: Suppress((n, 1)), lambda n: theirs.SuppressTokensLogitsProcessor([n, 1])),
    "begin": (lambda n: SuppressAtBegin((n, 1), 3), lambda n: theirs.SuppressTokensAtBeginLogitsProcessor([n, 1], 3)),
    "decay": (
        lambda n: ExponentialDecayLengthPenalty(1 + n % 4, 1.3, EOS),
        lambda n: theirs.ExponentialDecayLengthPenalty((n % 4, 1.3), list(EOS), 1),
    ),
    "bias": (
        lambda n: SequenceBias({(n,): 1.5, (3, n): -2.0, (1, 4, 2): 9.0}),
        lambda n: theirs.SequenceBiasLogitsProcessor({(n,): 1.5, (3, n): -2.0, (1, 4, 2): 9.0}),
    ),
    "bad words": (
        lambda n: bad_words([[n], [1, n], [2], [4, 4, 4]], EOS),
        lambda n: theirs.NoBadWordsLogitsProcessor([[n], [1, n], [2], [4, 4, 4]], list(EOS)),
    ),
    "invalid": (lambda n: RemoveInvalid(), lambda n: theirs.InfNanRemoveLogitsProcessor()),
}


@pytest.mark.parametrize("name", EXACT)
@given(given_inputs=inputs(), n=st.integers(0, V - 1))
@settings(max_examples=60, deadline=None)
def test_equal_scores(name: str, given_inputs, n: int) -> None:
    ours, reference = (build(n) for build in EXACT[name])
    compare(ours, reference, *given_inputs)


@given(given_inputs=inputs(), length=st.integers(1, 9), n=st.integers(1, 5), penalty=st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_the_encoder_s_rules_are_about_the_prompt(given_inputs, length: int, n: int, penalty: float) -> None:
    ids, values = given_inputs
    prompts = torch.tensor(ids[:, :length])
    reference = theirs.EncoderRepetitionPenaltyLogitsProcessor(penalty, prompts)
    compare(EncoderRepetitionPenalty(length, penalty), reference, ids, values)
    reference = theirs.EncoderNoRepeatNGramLogitsProcessor(n, prompts)
    compare(EncoderNoRepeatNgram(min(length, ids.shape[1]), n), reference, ids, values)


def up_to_ties(row: np.ndarray, expected: np.ndarray, source: np.ndarray) -> None:
    """The same kept scores; among equal ones, and where the cut is a matter of rounding, which is open."""
    kept, theirs_kept = np.sort(source[row > -np.inf]), np.sort(source[expected > -np.inf])
    if not np.array_equal(kept, theirs_kept):
        # Only what stands at the cut may differ, by tokens that are equally likely or weigh next to nothing.
        odd = np.setdiff1d(np.union1d(kept, theirs_kept), np.intersect1d(kept, theirs_kept))
        weight = np.exp(odd - source.max(initial=-np.inf))
        few = abs(len(kept) - len(theirs_kept)) <= max(1, (source == odd[0]).sum() if len(odd) else 1)
        assert few or weight.sum() < 1e-5, (row, expected)
    np.testing.assert_array_equal(row[row > -np.inf], source[row > -np.inf])


KEEPING = {
    "top_p": (lambda x: TopP(x), lambda x: theirs.TopPLogitsWarper(x)),
    "top_p of three": (lambda x: TopP(x, 3), lambda x: theirs.TopPLogitsWarper(x, min_tokens_to_keep=3)),
    "min_p": (lambda x: MinP(x), lambda x: theirs.MinPLogitsWarper(x)),
    "typical": (lambda x: Typical(x), lambda x: theirs.TypicalLogitsWarper(x)),
    "epsilon": (lambda x: EpsilonCutoff(x), lambda x: theirs.EpsilonLogitsWarper(x)),
    "epsilon of two": (lambda x: EpsilonCutoff(x, 2), lambda x: theirs.EpsilonLogitsWarper(x, min_tokens_to_keep=2)),
    "eta": (lambda x: EtaCutoff(x), lambda x: theirs.EtaLogitsWarper(x)),
    "top_h": (lambda x: TopH(x), lambda x: theirs.TopHLogitsWarper(x)),
}


@pytest.mark.parametrize("name", KEEPING)
@given(given_inputs=inputs(), x=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_the_same_tokens_are_kept(name: str, given_inputs, x: float) -> None:
    ours, reference = (build(x) for build in KEEPING[name])
    compare(ours, reference, *given_inputs, same=up_to_ties)


@pytest.mark.parametrize("name", KEEPING)
def test_the_same_tokens_are_kept_at_the_published_vocabulary(name: str) -> None:
    random = np.random.default_rng(0)
    for x in (0.05, 0.3, 0.9, 0.95):
        ours, reference = (build(x) for build in KEEPING[name])
        values = random.standard_normal((2, 50257), np.float32) * random.choice([1, 3, 6])
        mine, expected = ours([], values), reference(None, torch.tensor(values)).numpy()
        assert np.mean((mine > -np.inf) != (expected > -np.inf)) <= 2 / 50257


@given(values=scores(2))
@settings(max_examples=60, deadline=None)
def test_renormalize(values: np.ndarray) -> None:
    mine, expected = Renormalize()([], values), theirs.LogitNormalization()(None, torch.tensor(values)).numpy()
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_openai_s_penalties_count_what_was_generated() -> None:
    values = np.zeros((1, 6), np.float32)
    out = OccurrencePenalty(2, presence=0.5, frequency=0.25)([np.array([0, 1, 3, 3, 4])], values)
    np.testing.assert_allclose(out, [[0, 0, 0, -1.0, -0.75, 0]])


# llama.cpp's own answers for four tokens of probability .1, .2, .3, .4 (tests/test-sampling.cpp)
@pytest.mark.parametrize(
    ("warper", "expected"),
    [(TopK(3), [0, 2 / 9, 3 / 9, 4 / 9]), (TopP(0.7), [0, 0, 3 / 7, 4 / 7]), (MinP(0.26), [0, 2 / 9, 3 / 9, 4 / 9])],
    ids=str,
)
def test_llama_cpp_s_answers(warper, expected: list[float]) -> None:
    kept = warper([], np.log(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)))
    np.testing.assert_allclose(np.exp(Renormalize()([], kept))[0], expected, atol=1e-6)


@given(given_inputs=inputs(), n=st.integers(0, V - 1))
@settings(max_examples=60, deadline=None)
def test_allowed_tokens(given_inputs, n: int) -> None:
    def allowed(number: int, ids) -> list[int]:
        return [n, int(ids[-1])]

    ids, values = given_inputs  # all rows are beams of one prompt
    compare(PrefixAllowedTokens(allowed), theirs.PrefixConstrainedLogitsProcessor(allowed, len(ids)), ids, values)

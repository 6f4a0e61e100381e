"""Exhaustive search against a search by hand, and beam search against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, reference_model

from decoders import Options, generate
from decoders.base.interface import log_softmax
from decoders.searches.beam_common import Beam

V, EOS = 6, 3
MODELS = {
    seed: reference_model(seed, vocab_size=V, n_positions=16, n_layer=1, n_embd=16, n_head=2) for seed in range(3)
}


@pytest.mark.parametrize("seed", sorted(MODELS))
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_every_text_is_there_with_its_score(seed: int, penalty: float) -> None:
    trace: list[tuple[Beam, ...]] = []
    options = Options(
        exhaustive=True, max_new_tokens=3, eos_token_id=EOS, length_penalty=penalty, num_return_sequences=4
    )
    found = generate(TorchStepper(MODELS[seed]), [[1, 2]], options, trace=trace)
    texts = [
        ids
        for length in (1, 2, 3)
        for ids in itertools.product(range(V), repeat=length)
        if EOS not in ids[:-1] and (ids[-1] == EOS or length == 3)
    ]
    assert sorted(beam.ids for beam in trace[0]) == sorted(texts)
    scores = {}
    for ids in texts:
        total = 0.0
        for place, token in enumerate(ids):
            logits = TorchStepper(MODELS[seed]).feed([[1, 2, *ids[:place]]])[0]
            total += float(log_softmax(logits.astype(float))[token])
        scores[ids] = total / len(ids) ** penalty
    best = sorted(scores, key=lambda ids: -scores[ids])[:4]
    assert [tuple(one.ids) for one in found] == best
    np.testing.assert_allclose([one.score for one in found], [scores[ids] for ids in best], atol=1e-5)
    assert [one.finish_reason for one in found] == ["stop" if ids[-1] == EOS else "length" for ids in best]


@given(
    seed=st.sampled_from(sorted(MODELS)),
    prompt=st.lists(st.integers(0, V - 1), min_size=1, max_size=4),
    new=st.integers(1, 2),
    penalty=st.sampled_from([0.0, 0.5, 1.0]),
    early=st.sampled_from([False, "never"]),
    rules=st.fixed_dictionaries(
        {},
        optional={
            "repetition_penalty": st.floats(0.8, 1.5),
            "suppress_tokens": st.just([2]),
            "min_new_tokens": st.just(1),
        },
    ),
)
@settings(max_examples=30, deadline=None)
def test_a_wide_enough_beam_is_optimal(seed, prompt, new, penalty, early, rules) -> None:
    common = {"max_new_tokens": new, "eos_token_id": EOS, "length_penalty": penalty, **rules}
    oracle = generate(TorchStepper(MODELS[seed]), [prompt], Options(exhaustive=True, **common))[0]
    wide = generate(TorchStepper(MODELS[seed]), [prompt], Options(num_beams=V, early_stopping=early, **common))[0]
    narrow = generate(TorchStepper(MODELS[seed]), [prompt], Options(num_beams=2, early_stopping=early, **common))[0]
    assert wide.score == pytest.approx(oracle.score, abs=1e-5)
    assert wide.ids == oracle.ids
    assert narrow.score <= oracle.score + 1e-5


def test_too_much_is_refused_before_it_starts() -> None:
    with pytest.raises(ValueError, match=r"no more than 262144 texts: 6 tokens \*\* max_new_tokens, got 7"):
        generate(TorchStepper(MODELS[0]), [[1]], Options(exhaustive=True, max_new_tokens=7))
    with pytest.raises(ValueError, match="at most the number of texts there are"):
        generate(TorchStepper(MODELS[0]), [[1]], Options(exhaustive=True, max_new_tokens=1, num_return_sequences=7))


@pytest.mark.parametrize("other", [{"do_sample": True}, {"num_beams": 2}])
def test_contradictions_are_refused_by_name(other) -> None:
    with pytest.raises(ValueError, match="exhaustive can't be combined with"):
        Options(exhaustive=True, **other)

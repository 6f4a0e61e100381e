"""What beams and searches tell of each id: its scores, the rows it came by, its alternatives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from golden_searches import model
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, random_ids, reference_generate, reference_model, seeded

from decoders import Options, generate
from decoders.base.interface import log_softmax
from gpt2_np import GPT2

MODELS = {seed: reference_model(seed, vocab_size=19, n_positions=64, n_layer=1, n_embd=24) for seed in range(4)}
EOS = 3
EVERY = {
    "beams": {"num_beams": 4},
    "beam sampling": {"num_beams": 3, "do_sample": True, "seed": 1, "temperature": 1.3},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "constrained beams": {"num_beams": 4, "force_words_ids": [[7, 8]]},
    "exhaustive": {"exhaustive": True, "max_new_tokens": 3},
}


@given(
    number=st.integers(0, 3),
    rows=st.integers(1, 3),
    seed=st.integers(0, 99),
    beams=st.integers(2, 5),
    eos=st.sampled_from([None, EOS]),
    new=st.integers(1, 9),
    options=st.fixed_dictionaries(
        {},
        optional={
            "do_sample": st.just(True),
            "early_stopping": st.sampled_from([True, False, "never"]),
            "length_penalty": st.sampled_from([0.0, 1.0, 2.0]),
            "repetition_penalty": st.just(1.3),
            "no_repeat_ngram_size": st.just(2),
        },
    ),
)
@settings(max_examples=60, deadline=None)
def test_scores_and_beam_indices_are_transformers(number, rows, seed, beams, eos, new, options) -> None:
    prompts = random_ids(rows, 4, 19, seed).tolist()
    options |= {"num_beams": beams, "num_return_sequences": 2, "max_new_tokens": new}
    theirs = reference_generate(MODELS[number], prompts, seed, eos_token_id=eos, **options)
    asked = Options(eos_token_id=eos, output_scores=True, **seeded(seed, options))
    found = generate(TorchStepper(MODELS[number]), prompts, asked)
    for one, rows_of in zip(found, theirs.beam_indices.tolist(), strict=True):
        assert one.beam_indices == [row for row in rows_of if row >= 0]
        assert len(one.scores) == len(one.ids)
        for step, (row, mine) in enumerate(zip(one.beam_indices, one.scores, strict=True)):
            np.testing.assert_allclose(mine, theirs.scores[step][row].numpy(), atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_the_scores_of_a_text_add_up_to_its_own(options: dict[str, Any]) -> None:
    chosen = model(1)
    asked = Options(
        **({"max_new_tokens": 6, "eos_token_id": EOS, "num_return_sequences": 2} | options),
        output_scores=True,
        top_logprobs=chosen.config.vocab_size,
    )
    found = generate(chosen.start(), [[4, 5, 6], [9]], asked, context=chosen.config.n_positions)
    for number, one in enumerate(found):
        own = [float(row[token]) for row, token in zip(one.scores, one.ids, strict=True)]
        assert sum(own) / len(own) == pytest.approx(one.score, abs=1e-5)
        assert [dict(top)[token] for top, token in zip(one.top, one.ids, strict=True)] == one.logprobs
        for top in one.top:
            assert [logprob for _, logprob in top] == sorted((logprob for _, logprob in top), reverse=True)
            assert len(top) == chosen.config.vocab_size
        if "exhaustive" in options:
            assert one.beam_indices == []
        else:
            beams = asked.num_beams
            assert one.beam_indices[0] % beams in (0, beams // asked.num_beam_groups)
            assert {row // beams for row in one.beam_indices} == {number // 2}


def test_what_stochastic_beams_draw_from() -> None:
    chosen = model(1)
    asked = Options(
        num_beams=4, stochastic_beams=True, do_sample=True, seed=0, max_new_tokens=5, temperature=0.7,
        output_scores=True, top_logprobs=2, num_return_sequences=4,
    )  # fmt: skip
    for one in generate(chosen.start(), [[4, 5, 6]], asked):
        drawn = [
            float(log_softmax(row.astype(np.float64))[token]) for row, token in zip(one.scores, one.ids, strict=True)
        ]
        assert sum(drawn) == pytest.approx(one.score, abs=1e-5)
        assert [len(top) for top in one.top] == [2] * 5


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_asking_changes_no_text(options: dict[str, Any]) -> None:
    chosen = model(1)
    settled = {"max_new_tokens": 5, "eos_token_id": EOS} | options
    for more in ({"output_scores": True}, {"top_logprobs": 3}):
        plain, told = (generate(chosen.start(), [[4, 5, 6]], Options(**(settled | extra)))[0] for extra in ({}, more))
        assert (plain.ids, plain.logprobs, plain.score) == (told.ids, told.logprobs, told.score)
        assert plain.scores == plain.top == plain.beam_indices == []


def test_a_generation_tells_them_too() -> None:
    tales = GPT2.from_pretrained()
    out = tales.generate("The king", num_beams=2, max_new_tokens=4, output_scores=True, top_logprobs=2)
    assert len(out.scores) == len(out.top) == len(out.beam_indices) == len(out.ids)
    assert all(row in (0, 1) for row in out.beam_indices)
    assert all(len(list(top)) == 2 for top in itertools.chain(out.top))

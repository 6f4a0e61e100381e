"""Constrained beams against transformers 4's, and what they promise."""

from __future__ import annotations

import pytest
from golden_searches import GOLDEN, model, ours, same_beams
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options, generate
from decoders.searches.beam_common import Step
from decoders.searches.constrained_beam import Progress, choices


@pytest.mark.parametrize("case", GOLDEN["constrained_beams"])
def test_ids_and_scores_are_transformers_own(case) -> None:
    same_beams(case)


@given(
    forced=st.lists(st.lists(st.integers(4, 18), min_size=1, max_size=3), min_size=1, max_size=2),
    beams=st.integers(2, 6),
    new=st.integers(8, 14),
    penalty=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=30, deadline=None)
def test_every_phrase_occurs_where_there_is_room(forced, beams, new, penalty) -> None:
    options = Options(
        force_words_ids=forced, num_beams=beams, max_new_tokens=new, eos_token_id=3, length_penalty=penalty
    )
    for one in generate(model(0).start(), [[4, 5, 6]], options):
        if one.finish_reason == "stop":  # only texts that contain everything may end
            assert Progress.of(choices(forced), [4, 5, 6, *one.ids[:-1]]).complete


def test_a_phrase_broken_off_begins_anew() -> None:
    constraints = choices([[5, 6], [[7, 8], [7, 9]]])
    assert not Progress.of(constraints, [5, 5, 6]).complete
    assert Progress.of(constraints, [5, 6, 7]).bank == 3
    assert Progress.of(constraints, [7, 9, 0, 5, 6]).complete
    assert Progress.of(constraints, [5]).helpful() == [6]
    # What was broken off waits behind what was never begun; its own first token doesn't count twice.
    assert Progress.of(constraints, [5, 0]).helpful() == [7, 5]


def test_each_prompt_of_a_batch_gets_what_it_gets_alone() -> None:
    settings = {
        "num_beams": 4,
        "force_words_ids": [[7, 8], [[9], [10, 11]]],
        "max_new_tokens": 9,
        "eos_token_id": 3,
        "num_return_sequences": 2,
    }
    prompts = [[4], [7, 8, 9, 10], [5, 6]]
    together = ours({"model": 1, "prompts": prompts, "options": settings})
    alone = [one for prompt in prompts for one in ours({"model": 1, "prompts": [prompt], "options": settings})]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_the_trace_shows_the_candidates_and_the_pool() -> None:
    steps: list[Step] = []
    options = Options(num_beams=3, force_words_ids=[[7, 8]], max_new_tokens=6, eos_token_id=3)
    found = generate(model(1).start(), [[4, 5]], options, trace=steps)
    assert [step.open for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].stopped
    assert found[0].score == max(float(beam.score) for beam in steps[-1].pool)
    assert all(len(step.candidates) == 6 for step in steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_words_ids": [[5]]}, "force_words_ids acts only in beam search"),
        ({"force_words_ids": [], "num_beams": 2}, "must be a list of phrases"),
        ({"force_words_ids": [[5], []], "num_beams": 2}, "must be a list of phrases"),
        ({"force_words_ids": [[[5], [5, 6]]], "num_beams": 2}, "may begin another"),
        ({"force_words_ids": [[5, 3]], "num_beams": 2, "eos_token_id": 3}, "must not hold an end-of-text"),
        ({"force_words_ids": [[5]], "num_beams": 2, "do_sample": True}, "can't be combined with do_sample"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="force_words_ids must hold ids between 0 and 18, got 19"):
        generate(model(0).start(), [[4]], Options(force_words_ids=[[19]], num_beams=2))

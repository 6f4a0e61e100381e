"""Diverse beam search against transformers 4's, and what its groups promise."""

from __future__ import annotations

import pytest
from golden_searches import GOLDEN, model, ours, same_beams

from decoders import Options, generate
from decoders.searches.beam_common import Step


@pytest.mark.parametrize("case", GOLDEN["group_beams"])
def test_ids_and_scores_are_transformers_own(case) -> None:
    same_beams(case)


def test_a_large_penalty_keeps_first_tokens_apart() -> None:
    options = Options(num_beams=6, num_beam_groups=6, diversity_penalty=1e4, num_return_sequences=6, max_new_tokens=1)
    found = generate(model(0).start(), [[4, 5]], options)
    assert len({one.ids[0] for one in found}) == 6


def test_each_prompt_of_a_batch_gets_what_it_gets_alone() -> None:
    settings = {
        "num_beams": 4,
        "num_beam_groups": 2,
        "diversity_penalty": 0.7,
        "max_new_tokens": 9,
        "eos_token_id": 3,
        "num_return_sequences": 2,
    }
    prompts = [[4], [7, 8, 9, 10], [5, 6]]
    together = ours({"model": 1, "prompts": prompts, "options": settings})
    alone = [one for prompt in prompts for one in ours({"model": 1, "prompts": [prompt], "options": settings})]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_the_trace_tells_of_every_group_and_why_it_stopped() -> None:
    steps: list[Step] = []
    options = Options(num_beams=4, num_beam_groups=2, diversity_penalty=0.7, max_new_tokens=5, eos_token_id=3)
    found = generate(model(1).start(), [[4, 5]], options, trace=steps)
    assert {step.group for step in steps} == {0, 1}
    assert [step.stopped is not None for step in steps if step.group == 1].count(True) == 1
    assert all(step.open == (step.stopped is None) for step in steps)
    last = [step for step in steps if not step.open]
    assert found[0].score == max(float(beam.score) for step in last for beam in step.pool)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, "num_beam_groups must divide num_beams"),
        ({"num_beams": 4, "num_beam_groups": 2}, "needs a finite diversity_penalty above 0"),
        ({"num_beams": 4, "diversity_penalty": 1.0}, "give num_beam_groups above 1 too"),
        ({"num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beam_groups acts only in beam search"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True}, "with do_sample"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)

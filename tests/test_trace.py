"""Traces of searches: from the public call to JSON, and what each step says of the one before."""

from __future__ import annotations

import json

import numpy as np
import pytest

from decoders.beam import Step
from decoders.trace import record
from gpt2_np import GPT2

PROMPT = "The king"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, {"num_beams": 3, "early_stopping": True, "length_penalty": 0.5, "stop_strings": "."},
     {"num_beams": 3, "do_sample": True, "seed": 4},
     {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.8},
     {"num_beams": 4, "force_words_ids": [" castle", [" queen", " lady"]]}],
)  # fmt: skip
def test_a_trace_holds_the_whole_search(model: GPT2, options: dict) -> None:
    steps: list[Step] = []
    found = model.generate(PROMPT, max_new_tokens=12, trace=steps, num_return_sequences=2, **options)
    assert [one.ids for one in found] == [one.ids for one in model.generate(PROMPT, max_new_tokens=12,
                                          num_return_sequences=2, **options)]  # fmt: skip
    for group in {step.group for step in steps}:
        mine = [step for step in steps if step.group == group]
        running: set[tuple[int, ...]] = {()}
        for length, step in enumerate(mine, 1):
            # Candidates continue the beams before; what runs on, or ended, is among the candidates or was forced.
            assert {beam.ids[:-1] for beam in step.candidates} <= running
            assert all(len(beam.ids) == length for beam in step.candidates)
            if "force_words_ids" not in options:
                assert {beam.ids for beam in step.running} <= {beam.ids for beam in step.candidates}
            running = {beam.ids for beam in step.running}
        assert [bool(step.stopped) for step in mine] == [False] * (len(mine) - 1) + [True]
    last = [step for step in steps if step.stopped]
    scores = sorted((float(beam.score) for step in last for beam in step.pool), reverse=True)
    np.testing.assert_allclose([one.score for one in found], scores[:2])


def test_its_records_are_json_with_texts(model: GPT2) -> None:
    for options in ({"num_beams": 2}, {"do_sample": True, "best_of": 3, "seed": 1},
                    {"num_beams": 3, "do_sample": True, "stochastic_beams": True, "seed": 1}):  # fmt: skip
        trace: list = []
        out = model.generate(PROMPT, max_new_tokens=5, trace=trace, **options)
        lines = [json.loads(json.dumps(record(entry, model.tokenizer.decode))) for entry in trace]
        assert lines
        assert json.dumps(out.text) in json.dumps(lines)
    assert {"ids", "text", "log_probability", "gumbel", "finish_reason"} == set(lines[0]["found"][0])
    assert set(record(trace[0])["found"][0]) == {"ids", "log_probability", "gumbel", "finish_reason"}


def test_what_has_no_search_has_no_trace(model: GPT2) -> None:
    with pytest.raises(ValueError, match="trace is for searches"):
        model.generate(PROMPT, max_new_tokens=2, trace=[])

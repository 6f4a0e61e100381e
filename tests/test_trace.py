"""Traces of searches: from the public call to JSON, and what each step says of the one before."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from decoders.base.watching import TokenStep, change
from decoders.searches.beam_common import Step
from decoders.trace import record
from gpt2_np import GPT2

PROMPT = "The king"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "early_stopping": True, "length_penalty": 0.5, "stop_strings": "."},
        {"num_beams": 3, "do_sample": True, "seed": 4},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.8},
        {"num_beams": 4, "force_words_ids": [" castle", [" queen", " lady"]]},
    ],
)
def test_a_trace_holds_the_whole_search(model: GPT2, options: dict) -> None:
    steps: list[Step] = []
    found = model.generate(PROMPT, max_new_tokens=12, trace=steps, num_return_sequences=2, **options)
    assert [one.ids for one in found] == [
        one.ids for one in model.generate(PROMPT, max_new_tokens=12, num_return_sequences=2, **options)
    ]
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
    for options in (
        {"num_beams": 2},
        {"do_sample": True, "best_of": 3, "seed": 1},
        {"num_beams": 3, "do_sample": True, "stochastic_beams": True, "seed": 1},
    ):
        trace: list = []
        out = model.generate(PROMPT, max_new_tokens=5, trace=trace, **options)
        lines = [json.loads(json.dumps(record(entry, model.tokenizer.decode))) for entry in trace]
        assert lines
        assert json.dumps(out.text) in json.dumps(lines)
    assert {"ids", "text", "log_probability", "gumbel", "finish_reason"} == set(lines[0]["found"][0])
    assert set(record(trace[0])["found"][0]) == {"ids", "log_probability", "gumbel", "finish_reason"}


@pytest.mark.parametrize("sampled", [True, False])
def test_each_token_tells_what_each_processor_did(model: GPT2, sampled: bool) -> None:
    rules = {"repetition_penalty": 1.3, "suppress_tokens": [12, 280]}
    warpers = {"do_sample": True, "seed": 3, "temperature": 0.7, "top_k": 40, "top_p": 0.8} if sampled else {}
    trace: list[TokenStep] = []
    out = model.generate(PROMPT, max_new_tokens=6, trace=trace, **rules, **warpers)
    text = model.prompt_ids(PROMPT)
    chain = [
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor(1.3)),
        ("suppress_tokens", theirs.SuppressTokensLogitsProcessor([12, 280])),
    ]
    if sampled:
        chain += [
            ("temperature", theirs.TemperatureLogitsWarper(0.7)),
            ("top_k", theirs.TopKLogitsWarper(40)),
            ("top_p", theirs.TopPLogitsWarper(0.8)),
        ]
    assert [step.id for step in trace] == out.ids
    assert trace[-1].finish_reason == "length"
    for number, step in enumerate(trace):
        scores = torch.tensor(model(text)[-1:])
        assert step.entropy == pytest.approx(torch.distributions.Categorical(logits=scores).entropy().item(), abs=1e-4)
        assert [change.option for change in step.changes] == [name for name, _ in chain]
        for made, (_, processor) in zip(step.changes, chain, strict=True):
            before, scores = scores, processor(torch.tensor([text]), scores.clone())
            p, q, gone = before.softmax(-1), scores.softmax(-1), scores.isneginf() & ~before.isneginf()
            assert (made.removed, made.left) == (gone.sum(), (~scores.isneginf()).sum())
            assert made.mass == pytest.approx(p[gone].sum().item(), abs=1e-5)
            assert made.moved == pytest.approx((p - q).abs().sum().item() / 2, abs=1e-5)
            expected = torch.distributions.Categorical(probs=q).entropy().item()
            assert made.entropy == pytest.approx(expected, abs=1e-4)
        assert step.probability == pytest.approx(scores.softmax(-1)[0, step.id].item(), abs=1e-5)
        assert (step.length, step.logprob) == (number + 1, out.logprobs[number])
        text = [*text, step.id]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.8},
        {"num_beams": 3, "force_words_ids": [" castle"]},
        {"penalty_alpha": 0.5, "top_k": 3},
        {"dola_layers": "high"},
    ],
)
def test_every_strategy_tells_what_its_processors_did(model: GPT2, options: dict) -> None:
    trace: list = []
    model.generate(PROMPT, max_new_tokens=4, no_repeat_ngram_size=1, trace=trace, **options)
    groups = 2 if "num_beam_groups" in options else 1
    assert len(trace) == 4 * groups
    for entry in trace:
        beams = entry.changes if isinstance(entry, Step) else [entry.changes]
        assert len(beams) == options.get("num_beams", 1) // groups
        length = (
            len(model.prompt_ids(PROMPT))
            + (entry.length if isinstance(entry, TokenStep) else len(entry.candidates[0].ids))
            - 1
        )
        for changes in beams:
            (ngrams,) = [change for change in changes if change.option == "no_repeat_ngram_size"]
            assert ngrams.removed <= length if "dola_layers" in options else ngrams.removed == length
            assert 0 <= ngrams.mass <= 1
    json.dumps([record(entry, model.tokenizer.decode) for entry in trace])


def test_a_processor_that_removes_most_says_so() -> None:
    before, after = np.log(np.array([0.5, 0.25, 0.125, 0.125])), np.array([-np.inf, 0.0, -np.inf, 0.0])
    made = change("x", before, after)
    assert (made.removed, made.left) == (2, 2)
    assert made.mass == pytest.approx(0.625)
    assert made.moved == pytest.approx(0.625)
    assert made.entropy == pytest.approx(np.log(2))

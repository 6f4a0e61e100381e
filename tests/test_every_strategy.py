"""What must hold in every strategy alike: edits of activations act, a callable stops, time ends, JSON traces come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decoders import Options, strategies
from gpt2_np import GPT2

# One way to ask for each row of the table in `strategies`.
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 3},
    "prompt look-up": {"prompt_lookup_num_tokens": 4},
    "draft model": {"assistant_model": GPT2.from_pretrained().start},
    "best of n": {"do_sample": True, "seed": 3, "best_of": 3},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa": {"dola_layers": "high"},
    "beam search": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True, "seed": 3},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained beams": {"num_beams": 3, "force_words_ids": [[262]]},
    "stochastic beams": {"num_beams": 3, "do_sample": True, "seed": 3, "stochastic_beams": True},
    "exhaustive": {"exhaustive": True, "max_new_tokens": 1},
}
PROMPT = [343, 768, 12]
LENGTH = 6
PLACE = "blocks.2.resid_post"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


def pushed(x: np.ndarray) -> np.ndarray:
    """A residual stream with another direction in it, so that other tokens come."""
    return x + 3 * np.sin(np.arange(x.shape[-1], dtype=x.dtype))


def test_no_strategy_is_left_out() -> None:
    rows = [line.split("  ")[0] for line in (strategies.__doc__ or "").splitlines() if "`" in line and "  " in line]
    for name in rows:
        assert name in STRATEGIES, f"{name} is not tested"


@pytest.mark.parametrize("name", STRATEGIES)
def test_edits_of_activations_act(name: str, model: GPT2) -> None:
    options = {"max_new_tokens": LENGTH} | STRATEGIES[name]
    plain = model.generate(PROMPT, **options)
    edited = model.with_edits({PLACE: pushed})
    out = edited.generate(PROMPT, **options)
    assert out.ids != plain.ids or out.logprobs != pytest.approx(plain.logprobs, abs=1e-3)
    assert model.generate(PROMPT, **options).ids == plain.ids  # nothing stayed behind

    # The log-probabilities are those of edited runs over the whole text, position for position: no cache was stale.
    text = [*PROMPT, *out.ids]
    logits, _ = model.run_with_edits(text, {PLACE: pushed})
    logp = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)
    expected = [logp[len(PROMPT) + place - 1, token] for place, token in enumerate(out.ids)]
    assert out.logprobs == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_edit_that_changes_nothing_changes_nothing(name: str, model: GPT2) -> None:
    options = {"max_new_tokens": LENGTH} | STRATEGIES[name]
    assert model.with_edits({PLACE: lambda x: x}).generate(PROMPT, **options).ids == (
        model.generate(PROMPT, **options).ids
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_callable_stops(name: str, model: GPT2) -> None:
    if name == "exhaustive":
        return  # one token long: a text can't end earlier
    seen: list[tuple[list[int], int]] = []

    def after_three(prompt, new) -> bool:
        seen.append((list(prompt), len(new)))
        return len(new) >= 3

    options = STRATEGIES[name]
    out = model.generate(PROMPT, max_new_tokens=LENGTH, stopping_criteria=after_three, **options)
    # A beam that takes a constraint further goes on with that token and is asked at its next, as in transformers 4.
    length = 4 if name == "constrained beams" else 3
    assert len(out.ids) == length
    assert out.finish_reason == "stop"
    assert {tuple(prompt) for prompt, _ in seen} == {tuple(PROMPT)}
    assert max(number for _, number in seen) == length
    never = model.generate(PROMPT, max_new_tokens=LENGTH, stopping_criteria=[lambda prompt, new: False], **options)
    assert never.ids == model.generate(PROMPT, max_new_tokens=LENGTH, **options).ids


@pytest.mark.parametrize("name", STRATEGIES)
def test_time_ends_every_strategy(name: str, model: GPT2) -> None:
    if name == "exhaustive":
        with pytest.raises(ValueError, match="exhaustive can't be combined with max_time"):
            model.generate(PROMPT, max_time=1.0, **STRATEGIES[name])
        return
    options = STRATEGIES[name] | ({"num_beams": 2} if name == "constrained beams" else {})
    out = model.generate(PROMPT, max_new_tokens=LENGTH, max_time=1e-9, **options)
    assert len(out.ids) == 1
    assert out.finish_reason == "length"


def test_a_stream_stops_too(model: GPT2) -> None:
    whole = model.generate(PROMPT, max_new_tokens=4)
    assert "".join(model.stream(PROMPT, max_new_tokens=9, stopping_criteria=lambda prompt, new: len(new) == 4)) == (
        whole.text
    )


def test_an_ending_beam_competes_with_the_others(model: GPT2) -> None:
    trace: list = []
    out = model.generate(
        PROMPT,
        max_new_tokens=LENGTH,
        num_beams=3,
        trace=trace,
        num_return_sequences=3,
        stopping_criteria=lambda prompt, new: new[-1] == 261,
    )
    ended = [beam for step in trace for beam in step.candidates if beam.finish_reason == "stop"]
    assert ended
    assert all(beam.ids[-1] == 261 for beam in ended)
    assert all((one.finish_reason == "stop") == (one.ids[-1] == 261) for one in out)


@pytest.mark.parametrize("given", ["end", 3, [None], [lambda prompt, new: True, "end"]])
def test_what_can_t_stop(given, model: GPT2) -> None:
    with pytest.raises(ValueError, match="stopping_criteria must be a callable"):
        model.generate(PROMPT, stopping_criteria=given)
    with pytest.raises(ValueError, match="stopping_criteria must be a callable"):
        model.stream(PROMPT, stopping_criteria=given)


@pytest.mark.parametrize("name", STRATEGIES)
def test_outputs_or_a_clear_refusal(name: str, model: GPT2) -> None:
    searches = strategies.searches(Options(**STRATEGIES[name])) and name != "best of n"
    for option in ({"output_scores": True}, {"top_logprobs": 2}):
        asked = {"max_new_tokens": 2} | STRATEGIES[name] | option
        if searches:
            with pytest.raises(ValueError, match="a search gives a trace instead"):
                model.generate(PROMPT, **asked)
        else:
            out = model.generate(PROMPT, **asked)
            assert len(out.scores or out.top) == 2
    trace: list = []
    model.generate(PROMPT, **({"max_new_tokens": 2} | STRATEGIES[name]), trace=trace)
    assert trace

"""What must hold of every search alike: edits act, a callable stops, time ends, traces come, batches don't mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_searches import model
from option_strategies import maker

from decoders import Completion, Options, generate, methods
from decoders.base.method import Method
from gpt2_np import GPT2
from gpt2_np.model.params import map_arrays
from gpt2_np.session.model import Model

SEARCHES = [method for method in methods.every() if method.run is not None]
TRIALS: dict[str, tuple[Method, dict[str, Any]]] = {
    name: (method, dict(options)) for method in SEARCHES for name, options in method.trials.items()
}
EOS = 3
LENGTH = 6
PROMPT = [343, 768, 12]
PLACE = "blocks.2.resid_post"
RAGGED = [[4, 5, 6], [7], [8, 9, 10, 11, 8, 9, 10]]
every_trial = pytest.mark.parametrize("name", TRIALS)


def asked(name: str, chosen: Model | GPT2) -> dict[str, Any]:
    """A trial's options. Where it leaves open what drafts, that is the model itself; a text short enough to count."""
    options = {option: maker(option, chosen) if value is None else value for option, value in TRIALS[name][1].items()}
    if "exhaustive" in options and chosen.config.vocab_size > 100:
        options["max_new_tokens"] = 1
    return options


def run(chosen: Model, options: dict, prompts=([4, 5, 6],), **more: Any) -> list[Completion]:
    settings = Options(**({"max_new_tokens": 8, "eos_token_id": EOS} | options))
    return generate(chosen.start(), list(prompts), settings, context=chosen.config.n_positions, **more)


@pytest.fixture(scope="module")
def tales() -> GPT2:
    return GPT2.from_pretrained()


@pytest.mark.parametrize("method", SEARCHES, ids=lambda method: method.name)
def test_every_search_has_a_trial_that_runs_it(method: Method) -> None:
    assert method.trials, f"{method.name} is not tested"
    for options in method.trials.values():
        chosen = {name: maker(name, model(0)) if value is None else value for name, value in options.items()}
        assert Options(**chosen).search == method


def test_no_two_trials_have_one_name() -> None:
    assert len(TRIALS) == sum(len(method.trials) for method in SEARCHES) > len(methods.SEARCHES)


# ---- edits ---------------------------------------------------------------------------------------------------------


def pushed(x: np.ndarray) -> np.ndarray:
    """A residual stream with another direction in it, so that other tokens come."""
    return x + 3 * np.sin(np.arange(x.shape[-1], dtype=x.dtype))


@every_trial
def test_edits_of_activations_act(name: str, tales: GPT2) -> None:
    options = {"max_new_tokens": LENGTH} | asked(name, tales)
    plain = tales.generate(PROMPT, **options)
    out = tales.with_edits({PLACE: pushed}).generate(PROMPT, **options)
    assert out.ids != plain.ids or out.logprobs != pytest.approx(plain.logprobs, abs=1e-3)
    assert tales.generate(PROMPT, **options).ids == plain.ids  # nothing stayed behind
    assert tales.with_edits({PLACE: lambda x: x}).generate(PROMPT, **options).ids == plain.ids

    # The log-probabilities are those of edited runs over the whole text, position for position: no cache was stale.
    text = [*PROMPT, *out.ids]
    logits, _ = tales.run_with_edits(text, {PLACE: pushed})
    logp = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)
    expected = [logp[len(PROMPT) + place - 1, token] for place, token in enumerate(out.ids)]
    assert out.logprobs == pytest.approx(expected, abs=2e-3)


@every_trial
def test_an_edit_is_what_the_same_change_of_the_weights_is(name: str) -> None:
    plain, options = model(1), asked(name, model(1))
    shift = np.random.RandomState(0).normal(0, 1.0, plain.config.n_embd).astype(np.float32)
    edited = plain.with_edits({"blocks.1.mlp_out": lambda x: x + shift})
    # The same change made in the weights themselves: what the MLP adds to its output is a bias.
    bias = plain.params.h[1].mlp.c_proj.bias
    altered = plain.with_params(map_arrays(plain.params, lambda array: array + shift if array is bias else array))
    found, expected = run(edited, options), run(altered, options)
    assert [one.ids for one in found] == [one.ids for one in expected]
    np.testing.assert_allclose(found[0].logprobs, expected[0].logprobs, atol=2e-5)
    before = run(plain, options)
    assert not np.allclose(before[0].logprobs[:1], found[0].logprobs[:1], atol=1e-3)


# ---- how a text ends -----------------------------------------------------------------------------------------------


@every_trial
def test_a_callable_stops(name: str) -> None:
    seen: list[tuple[list[int], int]] = []

    def after_two(prompt, new) -> bool:
        seen.append((list(prompt), len(new)))
        return len(new) >= 2

    options = asked(name, model(1)) | {"eos_token_id": None}
    out = run(model(1), options, stopping=[after_two])[0]
    # A beam that takes forced words further goes on with that token and is asked at its next, as in transformers 4.
    length = 2 + sum(map(len, options.get("force_words_ids", ())))
    assert len(out.ids) == length
    assert out.finish_reason == "stop"
    assert {tuple(prompt) for prompt, _ in seen} == {(4, 5, 6)}
    assert max(number for _, number in seen) == length
    never = run(model(1), options, stopping=[lambda prompt, new: False])
    assert never[0].ids == run(model(1), options)[0].ids


@every_trial
def test_time_ends_every_search(name: str) -> None:
    method, options = TRIALS[name][0], asked(name, model(1)) | {"max_time": 1e-9, "eos_token_id": None}
    if "max_time" in method.excludes:
        with pytest.raises(ValueError, match=f"{method.askers[0]} can't be combined with max_time"):
            Options(**options)
        return
    (found,) = run(model(1), options)
    assert (len(found.ids), found.finish_reason) == (1, "length")


@every_trial
def test_the_result_is_possible_text_and_comes_in_the_asked_number(name: str) -> None:
    options, number = asked(name, model(1)) | {"suppress_tokens": [9]}, 2
    try:
        Options(**options, num_return_sequences=number)
    except ValueError as error:
        if "greedy decoding gives one sequence" not in str(error):
            raise
        number = 1
    found = run(model(1), options | {"num_return_sequences": number}, ([4, 5, 6], [7]))
    assert len(found) == 2 * number
    for one in found:
        assert 9 not in one.ids
        assert len(one.logprobs) == len(one.ids) <= 8
        assert (one.ids[-1] == EOS) == (one.finish_reason == "stop")
        assert EOS not in one.ids[:-1]


# ---- what is told --------------------------------------------------------------------------------------------------


@every_trial
def test_a_trace_comes_and_each_id_s_scores_and_alternatives(name: str) -> None:
    options = {"max_new_tokens": 2} | asked(name, model(1)) | {"eos_token_id": None}
    trace: list = []
    run(model(1), options, trace=trace)
    assert trace
    for option in ({"output_scores": True}, {"top_logprobs": 2}):
        out = run(model(1), options | option)[0]
        assert len(out.scores or out.top) == len(out.ids) >= 2


# ---- rows ----------------------------------------------------------------------------------------------------------


# DoLa guides by the contrast of layers; what is undone would have to be undone in the second model too.
UNGUIDED = ("DoLa", "banned strings")


@pytest.mark.parametrize("name", [name for name in TRIALS if name not in UNGUIDED])
def test_guidance_follows_every_search(name: str) -> None:
    # Guided away from the very prompt, nothing changes: as long as the second model follows each row's own past.
    guided = {"guidance_scale": 2.0, "negative_prompt_ids": [4, 5, 6], "unconditional": model(1).start}
    options = asked(name, model(1))
    found, expected = run(model(1), options | guided), run(model(1), options)
    assert [one.ids for one in found] == [one.ids for one in expected]
    if found[0].score is not None:
        np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=2e-5)


@pytest.mark.parametrize("number", [1, "tales"])
@every_trial
def test_a_prompt_gives_the_same_beside_prompts_of_other_lengths(name: str, number: int | str) -> None:
    chosen = model(number)
    options = asked(name, chosen)
    if "assistant_model" in options and number == 1:
        options["assistant_model"] = model(0).start  # which is wrong now and then
    if number == "tales":
        options = {"max_new_tokens": 3} | options
    together = run(chosen, options, RAGGED)
    for place, prompt in enumerate(RAGGED):
        beside = [prompt]
        if options.get("do_sample"):  # what is drawn for a row depends on its place: the others are as long as it is
            beside = [[15 + row] * len(prompt) if row != place else prompt for row in range(len(RAGGED))]
        alone = run(chosen, options, beside)[beside.index(prompt)]
        assert together[place].ids == alone.ids
        assert together[place].finish_reason == alone.finish_reason
        np.testing.assert_allclose(together[place].logprobs, alone.logprobs, atol=2e-5)


def test_each_row_takes_its_own_uniforms() -> None:
    draws = np.random.RandomState(0).uniform(size=(8, len(RAGGED)))
    options = {"do_sample": True, "eos_token_id": None}
    together = run(model(1), options | {"uniforms": draws.ravel().tolist()}, RAGGED)
    for row, prompt in enumerate(RAGGED):
        assert together[row].ids == run(model(1), options | {"uniforms": draws[:, row].tolist()}, [prompt])[0].ids


# ---- a caller's own stopping criteria, by `GPT2` -------------------------------------------------------------------


def test_a_stream_stops_too(tales: GPT2) -> None:
    whole = tales.generate(PROMPT, max_new_tokens=4)
    stopped = tales.generate(PROMPT, max_new_tokens=9, stopping_criteria=lambda prompt, new: len(new) == 4)
    assert (stopped.ids, stopped.finish_reason) == (whole.ids, "stop")
    assert "".join(tales.stream(PROMPT, max_new_tokens=9, stopping_criteria=lambda prompt, new: len(new) == 4)) == (
        whole.text
    )


def test_an_ending_beam_competes_with_the_others(tales: GPT2) -> None:
    trace: list = []
    out = tales.generate(
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
def test_what_can_t_stop(given, tales: GPT2) -> None:
    with pytest.raises(ValueError, match="stopping_criteria must be a callable"):
        tales.generate(PROMPT, stopping_criteria=given)
    with pytest.raises(ValueError, match="stopping_criteria must be a callable"):
        tales.stream(PROMPT, stopping_criteria=given)

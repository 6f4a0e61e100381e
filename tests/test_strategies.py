"""What holds of every strategy: edits act during it, it is reached by `GPT2.generate`, and its batches don't mix."""

from __future__ import annotations

import numpy as np
import pytest
from golden_searches import model

from decoders import Options, generate, strategies
from gpt2_np.params import map_arrays
from gpt2_np.session import Model

STRATEGIES = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 1, "top_p": 0.9},
    "prompt look-up": {"prompt_lookup_num_tokens": 4},
    "best of n": {"do_sample": True, "seed": 1, "best_of": 5},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa": {"dola_layers": "high"},
    "beam search": {"num_beams": 4},
    "beam sampling": {"num_beams": 4, "do_sample": True, "seed": 1},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained beams": {"num_beams": 4, "force_words_ids": [[7, 8]]},
    "stochastic beams": {"num_beams": 4, "do_sample": True, "seed": 1, "stochastic_beams": True},
    "exhaustive": {"exhaustive": True, "max_new_tokens": 3},
}


def run(chosen: Model, options: dict, prompts=([4, 5, 6],)) -> list:
    settings = Options(**({"max_new_tokens": 8, "eos_token_id": 3} | options))
    return generate(chosen.start(), list(prompts), settings, context=chosen.config.n_positions)


def test_the_list_names_them_all() -> None:
    assert strategies.__doc__ is not None
    assert all(name in strategies.__doc__ for name in STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_edits_act_during_every_strategy(name: str) -> None:
    plain = model(1)
    shift = np.random.RandomState(0).normal(0, 1.0, plain.config.n_embd).astype(np.float32)
    edited = plain.with_edits({"blocks.1.mlp_out": lambda x: x + shift})
    # The same change made in the weights themselves: what the MLP adds to its output is a bias.
    bias = plain.params.h[1].mlp.c_proj.bias
    altered = plain.with_params(map_arrays(plain.params, lambda array: array + shift if array is bias else array))
    found, expected = run(edited, STRATEGIES[name]), run(altered, STRATEGIES[name])
    assert [one.ids for one in found] == [one.ids for one in expected]
    np.testing.assert_allclose(found[0].logprobs, expected[0].logprobs, atol=2e-5)
    before = run(plain, STRATEGIES[name])
    assert not np.allclose(before[0].logprobs[:1], found[0].logprobs[:1], atol=1e-3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_result_is_possible_text_and_comes_in_the_asked_number(name: str) -> None:
    options = STRATEGIES[name] | {"suppress_tokens": [9]}
    many = "num_beams" in options or "do_sample" in options or "exhaustive" in options
    options |= {"num_return_sequences": 2 if many else 1}
    found = run(model(1), options, ([4, 5, 6], [7]))
    assert len(found) == 2 * options["num_return_sequences"]
    for one in found:
        assert 9 not in one.ids
        assert len(one.logprobs) == len(one.ids) <= 8
        assert (one.ids[-1] == 3) == (one.finish_reason == "stop")
        assert 3 not in one.ids[:-1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_a_trace(name: str) -> None:
    settings = Options(**({"max_new_tokens": 4, "eos_token_id": 3} | STRATEGIES[name]))
    trace: list = []
    generate(model(1).start(), [[4, 5]], settings, trace=trace)
    assert trace


@pytest.mark.parametrize("name", STRATEGIES)
def test_time_runs_out_for_every_strategy(name: str) -> None:
    if name == "exhaustive":
        with pytest.raises(ValueError, match="exhaustive can't be combined with max_time"):
            Options(exhaustive=True, max_time=1.0)
        return
    found = run(model(1), STRATEGIES[name] | {"max_time": 1e-9, "eos_token_id": None})
    assert [len(one.ids) for one in found] == [1]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "DoLa"])
def test_guidance_follows_every_strategy(name: str) -> None:
    # Guided away from the very prompt, nothing changes: as long as the second model follows each row's own past.
    guided = {"guidance_scale": 2.0, "negative_prompt_ids": [4, 5, 6], "unconditional": model(1).start}
    found, expected = run(model(1), STRATEGIES[name] | guided), run(model(1), STRATEGIES[name])
    assert [one.ids for one in found] == [one.ids for one in expected]
    if found[0].score is not None:
        np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=2e-5)


RAGGED = [[4, 5, 6], [7], [8, 9, 10, 11, 8, 9, 10]]


@pytest.mark.parametrize("number", [1, "tales"])
@pytest.mark.parametrize("name", [*STRATEGIES, "draft model"])
def test_a_prompt_gives_the_same_beside_prompts_of_other_lengths(name: str, number: int | str) -> None:
    chosen = model(number)
    draft = model(0 if number == 1 else number).start
    options = {"assistant_model": draft} if name == "draft model" else STRATEGIES[name]
    if name == "exhaustive" and number == "tales":
        options = options | {"max_new_tokens": 1}
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

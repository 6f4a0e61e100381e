"""Options that are finite, and take numbers out of float32: torch's own answer, or one line that names the option."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fuzz_options import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from option_strategies import beside
from reference import TorchStepper, new_ids, reference_generate, reference_model

from decoders import Options, generate, methods
from decoders.base.interface import log_softmax, softmax
from decoders.base.method import Interval

MODEL = reference_model(1, vocab_size=23, n_positions=64, n_layer=2)
PROMPTS = [[4, 5, 4]]
SAMPLE = {"do_sample": True, "seed": 1}
TINY = [1e-38, 1e-45, 1e-100, 5e-324]


def written(**asked: Any) -> list[Any]:
    return generate(Table(), [[1, 2], [0, 1, 0, 1]], Options(**asked))


REFUSED: list[tuple[dict[str, Any], str]] = [
    *[({"temperature": tiny, **SAMPLE}, "temperature must keep scores within float32: ") for tiny in TINY],
    ({"temperature": 1e-38, "num_beams": 3, **SAMPLE}, "no token is left to choose from after temperature: "),
    ({"temperature": 1e39, "top_k": 3, "order": ["top_k", "temperature"], **SAMPLE}, "temperature must keep scores"),
    ({"dynatemp_range": 1e308, "top_k": 3, "order": ["top_k", "temperature"], **SAMPLE}, "dynatemp_range must keep"),
    *[
        (
            {"presence_penalty": -1e38, "max_new_tokens": 6, "eos_token_id": None} | beams,
            ("diversity_penalty, " if "diversity_penalty" in beams else "") + "presence_penalty must keep a beam's sum",
        )
        for beams in (
            {"num_beams": 4},
            {"num_beams": 4, **SAMPLE},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
            {"num_beams": 4, "force_words_ids": [[7, 8]]},
        )
    ],
    ({"length_penalty": 200.0, "num_beams": 2}, "length_penalty must keep length ** length_penalty within float32"),
    ({"length_penalty": -200.0, "num_beams": 2}, "length_penalty must keep length ** length_penalty within float32"),
    ({"length_penalty": float("inf"), "num_beams": 2}, "length_penalty must keep"),
    ({"length_penalty": 1e308, "exhaustive": True, "max_new_tokens": 2}, "length_penalty must keep"),
    (
        {"length_penalty": 1e5, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        "length_penalty must keep",
    ),
    ({"length_penalty": 1e5, "num_beams": 4, "force_words_ids": [[7]]}, "length_penalty must keep"),
    ({"repetition_penalty": 1e-45}, "repetition_penalty must keep scores within float32: inf"),
    ({"repetition_penalty": 1e-100}, "repetition_penalty must keep"),
    ({"presence_penalty": -1e39}, "presence_penalty must keep"),
    ({"frequency_penalty": -float("inf")}, "frequency_penalty must keep"),
    ({"logit_bias": {1: 1e39}}, "logit_bias must keep scores within float32: inf"),
    ({"sequence_bias": {(1,): 1e308}}, "sequence_bias must keep"),
    ({"guidance_scale": 1e39, "unconditional": lambda: Table(1)}, "guidance_scale must keep"),
    ({"exponential_decay_length_penalty": (0, 1e39), "eos_token_id": 3}, "exponential_decay_length_penalty must keep"),
    (
        {"exponential_decay_length_penalty": (0, 1e30), "eos_token_id": 3, "min_new_tokens": 15},
        "exponential_decay_length_penalty must keep",
    ),
    (
        {"exponential_decay_length_penalty": (-(10**30), 1.5), "eos_token_id": 3},
        "exponential_decay_length_penalty must",
    ),
    (
        {"length_penalty": -20.0, "num_beams": 2, "max_new_tokens": 6},
        "length_penalty must keep the scores of texts above",
    ),
    ({"watermarking_config": {"bias": 1e39}}, "watermarking_config must keep"),
    ({"mirostat": 2, "mirostat_tau": 1e308, **SAMPLE}, "mirostat_tau and mirostat_eta must keep the limit finite"),
    ({"mirostat": 1, "mirostat_eta": 1e308, **SAMPLE}, "mirostat_tau and mirostat_eta must keep the limit finite"),
    ({"presence_penalty": -(10**60)}, "presence_penalty must keep"),
    ({"presence_penalty": 10**400}, "presence_penalty must be a number"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_leaves_float32_is_refused_by_name(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        written(**asked)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_transformers_has_no_answer_either() -> None:
    with pytest.raises(RuntimeError, match="probability tensor contains either"):
        reference_generate(MODEL, PROMPTS, 1, do_sample=True, temperature=1e-38, max_new_tokens=4)
    with pytest.raises(OverflowError):
        reference_generate(MODEL, PROMPTS, 1, num_beams=2, length_penalty=200.0, max_new_tokens=60)


@pytest.mark.parametrize(
    "asked",
    [
        {"do_sample": True, "temperature": 1e-35},
        {"do_sample": True, "temperature": 1e30},
        {"do_sample": True, "temperature": 1e39},
        {"do_sample": True, "temperature": 1e-37, "num_return_sequences": 2},
        {"repetition_penalty": 1e38},
        {"repetition_penalty": 1e39, "do_sample": True},
        {"sequence_bias": {(1,): -1e39}},
        {"sequence_bias": {(1,): 1e37}, "do_sample": True},
        {"num_beams": 3, "length_penalty": 30.0},
        {"num_beams": 3, "length_penalty": -5.0},
        {"num_beams": 3, "do_sample": True, "repetition_penalty": 1e30},
        {"exponential_decay_length_penalty": (2, 1e9)},
    ],
    ids=str,
)
def test_what_stays_within_float32_is_torch_s_own_answer(asked: dict[str, Any]) -> None:
    more = {"max_new_tokens": 6, "eos_token_id": 3}
    theirs = reference_generate(MODEL, PROMPTS, 5, **more, **asked)
    ours = generate(
        TorchStepper(MODEL), PROMPTS, Options(**more, **asked, **({"seed": 5} if "do_sample" in asked else {}))
    )
    assert [one.ids for one in ours] == new_ids(theirs, PROMPTS, 3)


def test_whole_numbers_beyond_numpy_s_are_numbers() -> None:
    for asked in (
        {"frequency_penalty": 10**20, "penalty_last_n": 4},
        {"dry_multiplier": 1.0, "dry_base": 2**64, "dry_allowed_length": 1},
        {"prompt_lookup_num_tokens": 10**20},
    ):
        assert all(len(one.ids) == 20 for one in written(max_new_tokens=20, **asked))
    with pytest.raises(ValueError, match=r"^num_beams must be at most the vocabulary's size \(12\), got 10{20}$"):
        written(num_beams=10**20)


def test_later_numbers_are_made_of_what_are_none() -> None:
    """remove_invalid_values acts after a bias, as in transformers."""
    asked = {"sequence_bias": {(1,): 1e39}, "remove_invalid_values": True, "max_new_tokens": 3}
    theirs = reference_generate(MODEL, PROMPTS, 0, eos_token_id=3, **asked)
    ours = generate(TorchStepper(MODEL), PROMPTS, Options(eos_token_id=3, **asked))
    assert [one.ids for one in ours] == new_ids(theirs, PROMPTS, 3) == [[1, 1, 1]]


def test_scores_that_are_far_apart_have_probabilities() -> None:
    scores = np.array([[3e38, -3e38, 3e38]], np.float32)
    np.testing.assert_array_equal(softmax(scores), [[0.5, 0, 0.5]])
    np.testing.assert_allclose(log_softmax(scores), [[np.log(0.5), -np.inf, np.log(0.5)]])


NUMBERS = [name for name, listed in methods.OPTIONS.items() if listed.kind == "number" and name != "max_time"]


@pytest.mark.parametrize("name", NUMBERS)
@given(value=st.floats(allow_nan=False) | st.sampled_from([10.0**e for e in range(-320, 309, 7)]))
@settings(max_examples=40, deadline=None)
def test_any_number_gives_sound_text_or_a_refusal(name: str, value: float) -> None:
    others = {one: Table if given is None else given for one, given in beside(name).items()}
    if name == "guidance_scale":
        others["unconditional"] = lambda: Table(1)
    if "do_sample" in others:
        others["seed"] = 1
    refused, completions = refusal_of({"max_new_tokens": 5} | others | {name: value})
    option = methods.option(name)
    if refused:
        assert name in refused
        assert "\n" not in refused
        inside = not option.interval or Interval.parse(option.interval).holds(value)
        assert not inside or re.search(" must keep | finite |no token is left", refused)
    for one in completions:
        assert all(0 <= token < 12 for token in one.ids)
        assert np.isfinite(one.logprobs).all()
        assert one.score is None or np.isfinite(one.score)


def refusal_of(asked: dict[str, Any]) -> tuple[str, list[Any]]:
    """(what is said against options, or nothing; what they write)."""
    try:
        return "", written(**asked)
    except ValueError as error:
        return str(error), []

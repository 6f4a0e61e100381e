"""Whatever an option is given: it works, or it is refused in one line that names it; never a traceback from inside."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from decoders import Options
from gpt2_np import GPT2

ODD: list[Any] = [
    "x",
    "",
    True,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    10**20,
    [],
    [1],
    [["a"]],
    {},
    {"a": 1},
    None,
    np.float32(0.5),
    np.int64(2),
    np.array([1, 2]),
    object(),
    b"x",
    (1, 2),
    [[1, 2]],
    [[]],
    [-1],
    [True],
    {1: float("nan")},
    {"x": 2.0},
    [([1], "a")],
    [1.5],
    len,
]
BEAMS = {"num_beams": 2}
# What an option needs beside it to act at all; the others are given do_sample.
BESIDE: dict[str, dict[str, Any]] = {
    "xtc_threshold": {"xtc_probability": 0.5},
    "dynatemp_exponent": {"dynatemp_range": 0.2},
    "mirostat_tau": {"mirostat": 2},
    "mirostat_eta": {"mirostat": 2},
    "dry_base": {"dry_multiplier": 1.0},
    "dry_allowed_length": {"dry_multiplier": 1.0},
    "dry_penalty_last_n": {"dry_multiplier": 1.0},
    "dry_sequence_breakers": {"dry_multiplier": 1.0},
    "negative_prompt_ids": {"guidance_scale": 2.0},
    "penalty_last_n": {"repetition_penalty": 1.2},
    "cuda_multiprocessors": {"rng": "cuda"},
    "length_penalty": BEAMS,
    "early_stopping": BEAMS,
    "num_beam_groups": BEAMS | {"diversity_penalty": 1.0},
    "diversity_penalty": BEAMS | {"num_beam_groups": 2},
    "force_words_ids": BEAMS,
    "stochastic_beams": BEAMS,
    "min_tokens_to_keep": {"top_k": 3},
    "penalty_alpha": {"top_k": 3},
}
CALLED = ("prefix_allowed_tokens_fn", "unconditional", "assistant_model")
WITHOUT_DRAWS = {
    "length_penalty",
    "early_stopping",
    "num_beam_groups",
    "diversity_penalty",
    "force_words_ids",
    "penalty_alpha",
    "num_beams",
    "exhaustive",
}


@pytest.fixture(scope="module")
def model(small) -> GPT2:
    return GPT2.from_pretrained(small)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Options)])
def test_odd_values_work_or_are_refused_by_name(name: str, model: GPT2) -> None:
    for value in ODD:
        if (value is None and name in BESIDE) or (value is len and name in CALLED):
            continue  # not given, so what stands beside it is refused instead; and a callable's own mistake is its own
        if name == "assistant_model" and isinstance(value, str):
            continue  # a model's name
        asked = {"max_new_tokens": 1, "do_sample": name not in WITHOUT_DRAWS} | BESIDE.get(name, {}) | {name: value}
        refused = refusal(model, asked)
        assert "\n" not in refused
        # DRY's breakers and texts need a tokenizer, which this model hasn't got.
        assert not refused or name in refused or "holds no tokenizer" in refused, f"{name}={value!r}: {refused}"


def refusal(model: GPT2, asked: dict[str, Any]) -> str:
    """What generating says against the options; nothing where they work."""
    try:
        model.generate([1, 2], **asked)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


def test_numpy_s_numbers_are_numbers() -> None:
    options = Options(
        do_sample=True,
        top_k=np.int64(5),
        temperature=np.float32(0.5),
        seed=np.uint32(3),
        suppress_tokens=np.array([1, 2]),
        bad_words_ids=[np.array([3, 4])],
    )
    assert (options.top_k, options.temperature, options.seed) == (5, 0.5, 3)
    assert (options.suppress_tokens, options.bad_words_ids) == ([1, 2], [[3, 4]])
    assert type(options.top_k) is int


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"eos_token_id": 1.5}, "eos_token_id must be an id or a list of ids, got 1.5"),
        ({"pad_token_id": "x"}, "pad_token_id must be an id, got 'x'"),
        ({"do_sample": 1}, "do_sample must be True or False, got 1"),
        ({"max_new_tokens": None}, "max_new_tokens must have a value, got None"),
        ({"uniforms": 0.5, "do_sample": True}, "uniforms must be a list of numbers, got 0.5"),
        ({"logit_bias": {"a": 1}}, "logit_bias must be a mapping of ids to numbers"),
        ({"sequence_bias": [([1], "a")]}, "sequence_bias must be a mapping of tuples of ids to numbers"),
        ({"exponential_decay_length_penalty": (1, 0)}, "exponential_decay_length_penalty must be a pair"),
        ({"prefix_allowed_tokens_fn": [1]}, "prefix_allowed_tokens_fn must be a callable"),
    ],
)
def test_wrong_kinds(asked: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Options(**asked)
    assert str(error.value).startswith(message)

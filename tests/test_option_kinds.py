"""Whatever an option is given: it works, or it is refused in one line that names it; never a traceback from inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from option_strategies import beside, maker

from decoders import Options, methods
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
CALLED = ("prefix_allowed_tokens_fn", "unconditional", "assistant_model", "first_layers")


@pytest.fixture(scope="module")
def model(small) -> GPT2:
    return GPT2.from_pretrained(small)


@pytest.mark.parametrize("name", methods.OPTIONS)
def test_odd_values_work_or_are_refused_by_name(name: str, model: GPT2) -> None:
    others = {one: maker(one, model) if value is None else value for one, value in beside(name).items()}
    for value in ODD:
        if (value is None and others) or (value is len and name in CALLED):
            continue  # not given, so what stands beside it is refused instead; and a callable's own mistake is its own
        if name == "assistant_model" and isinstance(value, str):
            continue  # a model's name
        asked = others | {"max_new_tokens": 1} | {name: value}
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

"""Ids outside the vocabulary: one line wherever ids are taken, and never another id's row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2_np import GPT2
from gpt2_np.internals import lens
from gpt2_np.internals.variants import log_probability, logit_difference
from gpt2_np.text.tokenizer import Tokenizer

V = 97  # of the small model
TAKERS: dict[str, Callable[[GPT2, int], Any]] = {
    "a call": lambda model, bad: model([1, bad]),
    "a batch": lambda model, bad: model([[1, 2], [bad, 3]]),
    "token types": lambda model, bad: model([1, 2], token_type_ids=[bad, 0]),
    "forward": lambda model, bad: model.forward(np.array([[1, bad]])),
    "run_with_cache": lambda model, bad: model.run_with_cache([bad]),
    "run_with_edits": lambda model, bad: model.run_with_edits([bad], {}),
    "generate": lambda model, bad: model.generate([1, bad]),
    "generate, several": lambda model, bad: model.generate([[1], [bad]]),
    "stream": lambda model, bad: list(model.stream([bad])),
    "score": lambda model, bad: model.score([1, bad, 3]),
    "score behind a prompt": lambda model, bad: model.score([1, 2], prompt=[bad]),
    "rank_choices": lambda model, bad: model.rank_choices([1, 2], [[3], [bad]]),
    "rank_choices, the prompt": lambda model, bad: model.rank_choices([bad], [[3], [4]]),
    "a session": lambda model, bad: model.start().feed([[1, bad]]),
    "a session, all": lambda model, bad: model.start().feed_all([[1], [2, bad]]),
    "the logit lens": lambda model, bad: lens.logit_lens(model, [1, bad]),
    "log_probability": lambda model, bad: log_probability(bad)(model([[1, 2]])),
    "logit_difference": lambda model, bad: logit_difference(1, bad)(model([[1, 2]])),
}


@pytest.fixture(scope="module")
def model(small: Path) -> GPT2:
    return GPT2.from_pretrained(small, backend="numpy")


@pytest.mark.parametrize("bad", [-1, V, -V, 2**31])
@pytest.mark.parametrize("taker", TAKERS)
def test_an_id_outside_the_vocabulary_is_named(taker: str, bad: int, model: GPT2) -> None:
    with pytest.raises(ValueError, match=f"ids must be between 0 and {V - 1}, got {bad}$"):
        TAKERS[taker](model, bad)


@given(bad=st.integers().filter(lambda one: not 0 <= one < V), taker=st.sampled_from(sorted(TAKERS)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_number_whatever_passes_for_an_id(bad: int, taker: str, model: GPT2) -> None:
    if not -(2**63) <= bad < 2**63:
        bad = 2**63 - 1
    with pytest.raises(ValueError, match="ids must be between"):
        TAKERS[taker](model, bad)


@pytest.mark.parametrize("bad", [10**30, -(10**30)])
def test_numbers_that_no_array_holds(bad: int, model: GPT2) -> None:
    for take in (lambda: model.start().feed([[1, bad]]), lambda: model.score([1, bad])):
        with pytest.raises(ValueError, match="ids must be between"):
            take()
    for take in (lambda: model([1, bad]), lambda: model.generate([1, bad])):
        with pytest.raises(ValueError, match="ids must be"):
            take()


@pytest.mark.parametrize("bad", [1.5, "a", None, [1]])
def test_what_is_no_whole_number_is_no_id(bad: Any, model: GPT2) -> None:
    for take in (lambda: model.generate([1, bad]), lambda: model.score([1, bad])):
        with pytest.raises(ValueError, match="ids must be whole numbers, got"):
            take()


@pytest.mark.parametrize("bad", [-1, 2**32, 10**30])
def test_what_can_be_no_id_is_not_decoded(bad: int) -> None:
    with pytest.raises(ValueError, match=f"ids must be between 0 and {2**32 - 1}, got {bad}"):
        Tokenizer.from_folder(Path(__import__("gpt2_np").__file__).parent / "bundled/tales").decode([1, bad])


@pytest.mark.parametrize(
    "wrong",
    [b"abc", [True, 3], [1.9, 2.2], None, Path("x"), {"a": 1}, [{"role": "user", "content": "x"}], 5, [None], {1, 2}]
    + [["a", b"b"], [[True]], [[1, 2], "a", 5], np.array([True]), np.array([1.5]), np.array(3), iter([1])],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_prompt_is_told_what_one_is(wrong: Any) -> None:
    model = GPT2.from_pretrained(backend="numpy")
    calls = [
        lambda: model.generate(wrong, max_new_tokens=1),
        lambda: model.score(wrong),
        lambda: model(wrong),
        lambda: model.run_with_cache(wrong),
        lambda: model.stream(wrong, max_new_tokens=1),
        lambda: model.rank_choices(wrong, ["a"]),
        lambda: model.rank_choices("a", [wrong]),
    ]
    told = r"must be (a text or a list of ids|whole numbers)|rows of ids must all be lists"
    for call in calls:
        with pytest.raises(ValueError, match=told) as error:
            call()
        assert "\n" not in str(error.value)

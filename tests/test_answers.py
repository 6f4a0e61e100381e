"""Ids outside the vocabulary, and what callers' own functions answer: one line that names the option."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fuzz_options import ANSWERS, NOT_BOOL, WRONG, Automaton, Table, V

from decoders import Options, generate, stream
from gpt2_np import GPT2


def ids(**asked: Any) -> list[int]:
    return generate(Table(), [[1, 2]], Options(max_new_tokens=4, **asked))[0].ids


# ---- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, V, True, 1.5, "a", 2**70])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("eos_token_id", lambda token: token),
        ("eos_token_id", lambda token: [2, token]),
        ("suppress_tokens", lambda token: [token]),
        ("begin_suppress_tokens", lambda token: [1, token]),
        ("bad_words_ids", lambda token: [[1, token]]),
        ("forced_bos_token_id", lambda token: token),
        ("forced_eos_token_id", lambda token: [token]),
        ("logit_bias", lambda token: {token: 1.0}),
        ("sequence_bias", lambda token: {(token,): 1.0}),
        ("sequence_bias", lambda token: [[[1, token], 1.0]]),
        ("force_words_ids", lambda token: [[1, token]]),
        ("force_words_ids", lambda token: [[[1], [token]]]),
        ("dry_sequence_breakers", lambda token: [[token]]),
        ("negative_prompt_ids", lambda token: [1, token]),
    ],
)
def test_an_id_that_is_none_is_refused(name: str, make: Any, wrong: Any) -> None:
    beside: dict[str, Any] = {"num_beams": 2} if name == "force_words_ids" else {}
    beside |= {"dry_multiplier": 1.0} if name == "dry_sequence_breakers" else {}
    beside |= {"guidance_scale": 2.0, "unconditional": Table} if name == "negative_prompt_ids" else {}
    with pytest.raises(ValueError, match=f"^{name} must .*, got .*") as error:
        ids(**beside, **{name: make(wrong)})
    assert "\n" not in str(error.value)


def test_numpy_s_ids_are_ids_everywhere() -> None:
    two = np.int64(2)
    for asked in (
        {"logit_bias": {two: np.float32(9.0)}},
        {"sequence_bias": {(two,): 9.0}},
        {"sequence_bias": [((two,), 9.0)]},
        {"bad_words_ids": [(np.int32(1), two)]},
        {"eos_token_id": (two,)},
    ):
        assert ids(**asked)
    assert ids(logit_bias={two: 99.0}) == [2] * 4


@pytest.mark.parametrize("token", [True, 1.5, "a", None, np.float32(1)])
def test_a_prompt_holds_ids(token: Any, small) -> None:
    with pytest.raises(ValueError, match=r"^ids must be whole numbers, got "):
        GPT2.from_pretrained(small, backend="numpy").generate([1, token], max_new_tokens=1)


# ---- prefix_allowed_tokens_fn --------------------------------------------------------------------------------------

TAKEN = [[0, 1], (0, 1), {2, 5}, np.array([2, 5]), range(3), [np.int64(2)], {0: 1}.keys()]


@pytest.mark.parametrize("answer", TAKEN, ids=str)
def test_what_may_be_allowed(answer: Any) -> None:
    assert set(ids(prefix_allowed_tokens_fn=lambda number, text: answer)) <= set(answer)


@pytest.mark.parametrize(
    "answer",
    [one for one in ANSWERS if not any(type(one) is type(same) and str(one) == str(same) for same in TAKEN)],
    ids=str,
)
def test_an_answer_that_is_no_list_of_ids_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"^prefix_allowed_tokens_fn must (allow|answer)") as error:
        ids(prefix_allowed_tokens_fn=lambda number, text: answer)
    assert "\n" not in str(error.value)


def test_minus_one_is_not_the_last_id() -> None:
    rule = "prefix_allowed_tokens_fn must allow ids between 0 and 11"
    for wrong, quoted in (([0, -1], "-1"), ([V], "12"), (np.array([1, -2]), "-2")):
        with pytest.raises(ValueError, match=f"^{rule}, got {quoted}$"):
            ids(prefix_allowed_tokens_fn=lambda number, text, wrong=wrong: wrong)


# ---- constraints, stops, uniforms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: str(one)[:40])
@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"eos_token_id": 3}, {"eos_token_id": 11}], ids=str)
def test_an_automaton_s_answer_must_be_one(wrong: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^constraint must (answer|speak)") as error:
        ids(constraint=Automaton(wrong), **more)
    assert "\n" not in str(error.value)


class Late(Automaton):
    """An automaton whose masks become shorter."""

    def following(self, new: Any) -> Any:
        mask, complete = super().following(new)
        return mask[: V - len(new)], complete


def test_an_automaton_that_is_wrong_later_is_refused_then() -> None:
    for more in ({}, {"eos_token_id": 11}):
        with pytest.raises(
            ValueError, match=r"^constraint must speak of as many ids as there are scores \(12\), got 11$"
        ):
            ids(constraint=Late(), **more)


@pytest.mark.parametrize("answer", NOT_BOOL, ids=str)
@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"constraint": Automaton()}], ids=lambda more: str([*more]))
def test_a_stop_says_yes_or_no(answer: Any, more: dict[str, Any]) -> None:
    stop = [lambda prompt, new: answer]
    with pytest.raises(ValueError, match=r"^stopping_criteria must answer True or False, got "):
        generate(Table(), [[1, 2]], Options(max_new_tokens=3, **more), stopping=stop)
    if not more:
        with pytest.raises(ValueError, match=r"^stopping_criteria must answer True or False, got "):
            list(stream(Table(), [[1, 2]], Options(max_new_tokens=3), stopping=stop))


def test_numpy_s_yes_is_yes() -> None:
    done = generate(Table(), [[1, 2]], Options(), stopping=[lambda prompt, new: np.bool_(len(new) == 2)])[0]
    assert (len(done.ids), done.finish_reason) == (2, "stop")


@pytest.mark.parametrize("wrong", [1.0, -0.1, float("inf"), 1])
def test_uniforms_are_refused_before_work_starts(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"^uniforms must be in \[0, 1\), got {re.escape(str(wrong))}$"):
        Options(do_sample=True, uniforms=[0.5, wrong])
    with pytest.raises(ValueError, match=r"^uniforms must "):
        Options(do_sample=True, uniforms=["a"])

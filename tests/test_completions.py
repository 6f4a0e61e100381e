"""Requests as they are read: whatever a body holds, it is a request or a refusal. And texts as they are told."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.options import DEFAULTS
from gpt2_np import GPT2
from gpt2_np.server.answers import Piece, Text, joined
from gpt2_np.server.completions import NOT_HERE, OF_THE_ANSWER, OURS, Completions, read
from gpt2_np.server.errors import Refused, refusal
from gpt2_np.server.limits import Limits
from gpt2_np.text.stopping import StopString

LIMITS = Limits(texts=8, rows=8, new_tokens=50)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(-2, 5000), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.integers(-5, 5), st.text(max_size=3)), max_size=2),
    st.sampled_from([[[]], [[1, 2]], [[1], ["a"]], {"5": 1.5}, {"-1": 2}, "low", "cpu", "llama.cpp", [0.5], 10**400]),
)
NAMES = sorted(
    {*DEFAULTS, *NOT_HERE, *OURS, *OF_THE_ANSWER, "prompt", "stop_strings", "token_healing", "choice", "nothing"}
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_body_is_a_request_or_refused_in_one_line(body: dict[str, Any]) -> None:
    try:
        asked = read(body, MODEL, LIMITS)
    except (ValueError, Refused) as error:
        told = refusal(error)
        if told.status not in (400, 404) or "\n" in told.body()["error"]["message"]:
            raise
        return
    jobs = asked.jobs(MODEL, LIMITS, lambda number: lambda event: None)
    assert sum(job.rows for job in jobs) <= LIMITS.texts
    assert all(job.options.most(len(job.ids)) <= LIMITS.new_tokens for job in jobs)
    assert (asked.options.seed is None) or asked.options.do_sample


MODEL = GPT2.from_pretrained()


def asked(model: GPT2, **body: Any) -> Completions:
    return read({"prompt": "a", **body}, model, LIMITS)


def test_what_absent_fields_mean(model: GPT2) -> None:
    plain = asked(model)
    assert plain.options.do_sample
    assert plain.options.temperature is None
    assert plain.options.max_new_tokens == 16
    assert plain.options.seed is not None
    assert plain.alternatives is None
    assert not asked(model, temperature=0, seed=3).options.do_sample
    assert asked(model, temperature=0, seed=3).options.seed is None
    assert "top_p" not in asked(model, temperature=0, top_p=0.9).options.given
    with pytest.raises(ValueError, match="top_p must be"):
        asked(model, temperature=0, top_p=7)
    with pytest.raises(ValueError, match="top_k"):  # which OpenAI's protocol doesn't have
        asked(model, temperature=0, top_k=5)
    assert not asked(model, num_beams=2).options.do_sample
    assert not asked(model, penalty_alpha=0.5, top_k=4).options.do_sample
    assert asked(model, num_beams=2, temperature=1.5).options.do_sample
    assert asked(model, num_beams=1).options.do_sample
    assert not asked(model, do_sample=False).options.do_sample
    assert asked(model, max_length=20).options.max_length == 20
    assert not asked(model, max_tokens=0, echo=True).writes
    assert asked(model, uniforms=[0.5] * 20).options.seed is None
    assert asked(model, prompt="").shown == [[]]


TEXTS = ["the king", " and", "\n\n", "aaa", "ab", "é", "😀", "x", "ba", "…"]


@pytest.mark.parametrize("seed", range(60))
def test_pieces_add_up_and_are_cut_before_the_first_stop_string(model: GPT2, seed: int) -> None:
    """Against the plain way: decode everything that came before the stop, and look for it."""
    chance, tokenizer = random.Random(seed), model.tokenizer
    prompt = tokenizer.encode("".join(chance.choices(TEXTS, k=3)))
    new = tokenizer.encode("".join(chance.choices(TEXTS, k=8)))
    stop = chance.sample(["ab", "aa", "\n\n", "😀", "king a", "é", "b", "aab", "n"], 2)
    stops = [StopString(tokenizer, one.encode()) for one in stop]
    count = next((n for n in range(1, len(new) + 1) if any(one(prompt, new[:n]) for one in stops)), None)
    text, pieces = Text(tokenizer, prompt, stop, [], echo=False), list[Piece]()
    for place, token in enumerate(new[:count]):
        last = place == len(new[:count]) - 1
        pieces.append(text.add(token, -1.0, (), ("length" if count is None else "stop") if last else None))
    whole = joined(pieces)
    before, after = tokenizer.decode(prompt), tokenizer.decode([*prompt, *new[:count]])
    known = len(tokenizer.decode([*prompt, *new[: (count or len(new)) - 1]]).rstrip("\ufffd"))
    starts = [place for one in stop if (place := after.find(one, max(0, known - len(one) + 1))) >= 0]
    expected = after[len(before) :] if count is None else after[len(before) : max(len(before), min(starts))]
    assert whole.text == expected
    offsets = [one.offset for one in whole.tokens]
    assert offsets == sorted(offsets)
    assert all(offset <= len(expected) for offset in offsets)
    for piece in pieces:
        assert not any(one in piece.text for one in stop) or count is None

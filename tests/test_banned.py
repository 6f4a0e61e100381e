"""Banned strings with rewind: against the definition in the plainest way, and what must hold of any text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from golden_searches import model
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options, generate, stream
from decoders.searches.banned import Banned
from gpt2_np import GPT2

MODEL = model(1)
WORDS = [b"a", b"b", b"ab", b"ba", b"B", b"c", b"cA", b"", b"abc", b" "]


def spelling(token: int) -> bytes:
    return WORDS[token % len(WORDS)]


def logits(ids: Sequence[int]) -> np.ndarray:
    return MODEL.start().feed([list(ids)])[0]


def plain(prompt: list[int], phrases: Sequence[bytes], most: int, choose: Callable[[np.ndarray], int]) -> list[int]:
    """Write; where the whole text holds a phrase, forget all from the id on in which the first of them begins."""
    new: list[int] = []
    bans: dict[tuple[int, ...], set[int]] = {}
    while len(new) < most:
        scores = logits([*prompt, *new]).copy()
        scores[sorted(bans.get(tuple(new), ()))] = -np.inf
        new.append(choose(scores))
        text = b"".join(map(spelling, new)).lower()
        found = [text.index(one.lower()) for one in phrases if one.lower() in text]
        if found:
            begin = max(n for n in range(len(new)) if len(b"".join(map(spelling, new[:n]))) <= min(found))
            bans.setdefault(tuple(new[:begin]), set()).add(new[begin])
            del new[begin:]
    return new


phrases_of = st.lists(st.text("abcA ", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=3)


@given(phrases=phrases_of, start=st.integers(0, 18), length=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_greedy_text_is_the_plain_one(phrases: list[bytes], start: int, length: int) -> None:
    asked = Options(max_new_tokens=length, banned_strings=Banned(spelling, tuple(phrases)))
    (out,) = generate(MODEL.start(), [[start, 5]], asked)
    assert out.ids == plain([start, 5], phrases, length, lambda scores: int(np.argmax(scores)))
    assert out.finish_reason == "length"
    np.testing.assert_allclose(
        out.logprobs,
        [
            (row - np.logaddexp.reduce(row))[token]
            for place, token in enumerate(out.ids)
            for row in [logits([start, 5, *out.ids[:place]]).astype(np.float64)]
        ],
        atol=1e-4,
    )


@given(phrases=phrases_of, seed=st.integers(0, 999))
@settings(max_examples=12, deadline=None)
def test_every_choice_takes_the_next_draw(phrases: list[bytes], seed: int) -> None:
    """Also those that are undone: the definition with the same numbers, one a choice."""
    numbers = np.random.default_rng(seed).random(400).tolist()
    left = iter(numbers)

    def choose(scores: np.ndarray) -> int:
        mass = np.cumsum(np.exp(scores.astype(np.float64) - scores.max()))
        return int(np.searchsorted(mass, next(left) * mass[-1], side="right"))

    asked = Options(do_sample=True, uniforms=numbers, max_new_tokens=8, banned_strings=Banned(spelling, tuple(phrases)))
    (out,) = generate(MODEL.start(), [[4, 5]], asked)
    assert out.ids == plain([4, 5], phrases, 8, choose)


def test_without_a_phrase_it_is_the_text_that_it_would_be() -> None:
    never = Banned(spelling, (b"nowhere",))
    for options in ({}, {"do_sample": True, "seed": 5, "top_p": 0.9}, {"repetition_penalty": 1.3, "top_logprobs": 3}):
        asked = {"max_new_tokens": 9, "eos_token_id": 3} | options
        (expected,) = generate(MODEL.start(), [[4, 5]], Options(**asked))
        (out,) = generate(MODEL.start(), [[4, 5]], Options(**asked, banned_strings=never))
        assert (out.ids, out.finish_reason, out.top) == (expected.ids, expected.finish_reason, expected.top)
        assert out.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


@given(phrases=phrases_of, seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_nothing_that_was_given_away_is_undone(phrases: list[bytes], seed: int) -> None:
    asked = Options(do_sample=True, seed=seed, max_new_tokens=10, banned_strings=Banned(spelling, tuple(phrases)))
    rows = list(stream(MODEL.start(), [[4, 5], [6]], asked))
    for number in (0, 1):
        mine = [token for token in rows if token.row == number]
        text = b"".join(spelling(token.id) for token in mine).lower()
        assert not any(one.lower() in text for one in phrases)
        assert [token.finish_reason for token in mine] == [None] * 9 + ["length"]


def test_text_is_held_back_while_it_could_become_a_phrase() -> None:
    banned = Banned(spelling, (b"abca",))
    of = {word: token for token, word in enumerate(WORDS)}
    cases = {(b"c",): 0, (b"a",): 1, (b"c", b"ab"): 1, (b"a", b"b"): 2, (b"a", b"", b"b", b"c"): 4, (b"ba", b"b"): 2}
    for words, held in cases.items():
        assert banned.pending([of[word] for word in words]) == held, words
    assert banned.begins([of[b"c"], of[b"ba"], of[b"B"], of[b"cA"]]) == 1
    assert banned.begins([of[b"c"], of[b"ba"], of[b"B"], of[b"cA"], of[b"c"]]) is None  # not within the newest


class Only:
    """An automaton: one of these texts."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self.texts = [list(text) for text in texts]

    def following(self, new: Sequence[int]) -> tuple[np.ndarray, bool]:
        allowed = np.zeros(MODEL.config.vocab_size, bool)
        for text in self.texts:
            if text[: len(new)] == list(new) and len(text) > len(new):
                allowed[text[len(new)]] = True
        return allowed, list(new) in self.texts


def test_under_a_constraint_another_way_is_taken() -> None:
    texts = [[0, 1, 5], [0, 1, 0], [5, 0, 5]]  # "abc", "aba", "cac"
    for phrases, left in [((b"abc",), [1, 2]), ((b"abc", b"aba"), [2]), ((b"c",), [1])]:
        asked = Options(constraint=Only(texts), eos_token_id=None, banned_strings=Banned(spelling, phrases))
        (out,) = generate(MODEL.start(), [[4, 5]], asked)
        assert out.ids in [texts[number] for number in left], phrases
        assert out.finish_reason == "stop"


def test_where_nothing_else_is_possible() -> None:
    # "b" has been given away when nothing turns out to be possible behind it: the text ends there.
    asked = Options(constraint=Only([[1, 5, 5]]), eos_token_id=None, banned_strings=Banned(spelling, (b"cc",)))
    (out,) = generate(MODEL.start(), [[4, 5]], asked)
    assert (out.ids, out.finish_reason) == ([1], "length")
    asked = Options(constraint=Only([[1, 5]]), eos_token_id=None, banned_strings=Banned(spelling, (b"b",)))
    with pytest.raises(ValueError, match=r"^banned_strings must leave something to write, got \['[bc]+'\]$"):
        generate(MODEL.start(), [[4, 5]], asked)
    # A token that a rule forces although it is banned.
    asked = Options(forced_bos_token_id=1, banned_strings=Banned(spelling, (b"b",)))
    with pytest.raises(ValueError, match=r"^banned_strings must leave something to write, got \['[bc]+'\]$"):
        generate(MODEL.start(), [[4]], asked)


def test_in_text() -> None:
    tales = GPT2.from_pretrained()
    said: dict[str, Any] = {"max_new_tokens": 24}
    assert " great" in tales.generate("Once upon a time there was a", **said).text
    for extra in ({}, {"do_sample": True, "seed": 3}):
        trace: list[Any] = []
        out = tales.generate(
            "Once upon a time there was a", banned_strings=["Little", " great"], trace=trace, **said, **extra
        )
        assert "little" not in out.text.lower()
        assert " great" not in out.text.lower()
        assert [step.id for step in trace] == out.ids
        shown = tales.stream("Once upon a time there was a", banned_strings=["Little", " great"], **said, **extra)
        assert "".join(shown) == out.text


@pytest.mark.parametrize(
    ("banned", "message"),
    [
        ("", "banned_strings must be texts of at least one character, got ''"),
        (["a", ""], r"banned_strings must be texts of at least one character, got \['a', ''\]"),
        (5, "banned_strings must be texts of at least one character, got 5"),
    ],
)
def test_what_cannot_be_is_refused(banned: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        GPT2.from_pretrained().generate("One day", banned_strings=banned)
    with pytest.raises(ValueError, match=r"^banned_strings can't be combined with num_beams, got 2$"):
        GPT2.from_pretrained().generate("One day", banned_strings="x", num_beams=2)
    with pytest.raises(ValueError, match=r"^banned_strings must be phrases that know where they begin, got 'x'$"):
        Options(banned_strings="x")

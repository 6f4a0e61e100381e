"""Marks in a text that isn't to be trusted, as tiktoken treats them; surrogates that make one character."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_tokenizer

from gpt2_np.text.byte_level_bpe import BYTE_OF_LETTER
from gpt2_np.text.tokenizer import Tokenizer
from gpt2_np.weights import hub

END, SAY = "<|endoftext|>", "<|say|>"
TALES = hub.locate(None)


def with_marks(tokenizer: Tokenizer) -> Tokenizer:
    """The bundled model's tokenizer with one more mark."""
    from gpt2_np.text.added_tokens import AddedToken
    from gpt2_np.text.tokenizer_files import library

    module = library() if type(tokenizer.inner).__module__ != "gpt2_np.text.own_tokenizer" else None
    mark = AddedToken(SAY, special=True)
    if module is None:
        tokenizer.inner.add_tokens([mark])
    else:
        module.add(tokenizer.inner, [mark])
    return tokenizer


@pytest.fixture(scope="module", params=["library", "plain"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return with_marks(plain_tokenizer(TALES) if request.param == "plain" else Tokenizer.from_folder(TALES))


def test_marks_are_ids_unless_told_otherwise(tokenizer: Tokenizer) -> None:
    end = tokenizer.end_of_text
    assert tokenizer.encode(f"a{END}b") == [*tokenizer.encode("a"), end, *tokenizer.encode("b")]
    assert tokenizer.encode(f"a{END}b", allowed_special="all") == tokenizer.encode(f"a{END}b")
    assert tokenizer.encode(f"a{END}b", allowed_special={END}) == tokenizer.encode(f"a{END}b")


def test_what_is_not_allowed_is_refused(tokenizer: Tokenizer) -> None:
    for settings_of in ({"allowed_special": ()}, {"disallowed_special": "all"}, {"allowed_special": [SAY]}):
        with pytest.raises(ValueError, match=r"^text must not hold the mark '<\|endoftext\|>': name it in allowed_sp"):
            tokenizer.encode(f"a {END}", **settings_of)
    with pytest.raises(ValueError, match=r"must not hold the mark '<\|say\|>'"):
        tokenizer.encode(f"{END}{SAY}", allowed_special=[END])


def test_what_is_neither_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"a{END}b", disallowed_special=())
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == f"a{END}b"
    mixed = tokenizer.encode(f"{SAY}{END}", allowed_special={SAY}, disallowed_special=())
    assert mixed[0] == tokenizer.inner.token_to_id(SAY)
    assert mixed[1:] == tokenizer.encode(END, disallowed_special=())
    assert tokenizer.encode(f"a{END}b")[1] == tokenizer.end_of_text  # nothing stayed behind


@given(parts=st.lists(st.sampled_from(["a", " b", END, SAY, "<|", "endoftext|>", "é", "\n", " 12"]), max_size=8))
@settings(max_examples=60, deadline=None)
def test_as_tiktoken_has_it(parts: list[str]) -> None:
    ours, theirs = both()
    text = "".join(parts)
    for allowed in (set(), {END}, {SAY}, {END, SAY}, "all"):
        for disallowed in ((), {END}, {SAY}, "all"):
            try:
                expected = theirs.encode(text, allowed_special=allowed, disallowed_special=disallowed)
            except ValueError:
                with pytest.raises(ValueError, match="text must not hold the mark"):
                    ours.encode(text, allowed_special=allowed, disallowed_special=disallowed)
            else:
                assert ours.encode(text, allowed_special=allowed, disallowed_special=disallowed) == expected


@cache
def both() -> tuple[Tokenizer, Any]:
    """The bundled model's tokenizer, and tiktoken's of the same vocabulary."""
    tiktoken = pytest.importorskip("tiktoken")
    ours = with_marks(Tokenizer.from_folder(TALES))
    theirs = tiktoken.Encoding(
        "tales",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=ranks(ours),
        special_tokens={END: ours.end_of_text, SAY: ours.inner.token_to_id(SAY)},
    )
    return ours, theirs


def ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """A byte-level BPE's tokens with their ids, which rank its merges as tiktoken wants them: bytes come first."""
    vocabulary = tokenizer.inner.get_vocab(with_added_tokens=False)
    return {
        bytes(BYTE_OF_LETTER[letter] for letter in word): token
        for word, token in vocabulary.items()
        if all(letter in BYTE_OF_LETTER for letter in word)
    }


def test_two_surrogates_are_one_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud83d\ude00b") == tokenizer.encode("a😀b")
    assert tokenizer.encode(f"\ud83d\ude00{END}", allowed_special="all") == tokenizer.encode(f"😀{END}")
    for text in ("\ud83d", "a\ude00\ud83db", "\ud83d\ud83d\ude00"):
        with pytest.raises(ValueError, match=r"^text must be valid Unicode, got a lone surrogate$"):
            tokenizer.encode(text)


def test_nothing_is_put_around_a_guarded_text(tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        if (TALES / name).is_file():
            (tmp_path / name).write_bytes((TALES / name).read_bytes())
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("a b", disallowed_special=()) == tokenizer.encode("a b", add_special_tokens=False)

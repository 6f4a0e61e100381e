"""Text ↔ ids: GPT-2's byte-level BPE (Radford et al. 2019, section 2.2), by the ``tokenizers`` library or in plain
Python.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..display import Readable
from ..model.config import Config
from . import tokenizer_files
from .byte_level_bpe import BYTE_OF_LETTER
from .tokenizer_files import Inner
from .tokenizer_marks import END_OF_TEXT

Special = Literal["all"] | Collection[str]
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which UTF-8 can't carry


class Tokenizer(Readable):
    """Encodes any text without loss, and decodes any ids. Special tokens such as ``<|endoftext|>`` are one id each.

    `ids_of_model` is how many ids the model has: a text that holds a special token above them is refused.
    """

    def __init__(self, inner: Inner, ids_of_model: int | None = None) -> None:
        inner.no_padding()
        inner.no_truncation()
        self.inner, self.ids_of_model = inner, ids_of_model
        self._bytes_of: dict[int, bytes] = {}
        vocabulary = inner.get_vocab(with_added_tokens=False)
        self._unspeakable = {byte for letter, byte in BYTE_OF_LETTER.items() if letter not in vocabulary}

    @classmethod
    def from_folder(cls, folder: Path, config: Config | None = None) -> Tokenizer:
        """The tokenizer of a model's folder, as transformers reads it from whichever files are there.

        They are, in this order: ``tokenizer.json``; ``vocab.json`` with ``merges.txt``; OpenAI's ``encoder.json``
        with ``vocab.bpe``; and beside them what adds marks (see `tokenizer_files`). ``FileNotFoundError`` when none
        is; ``ValueError`` when one is broken. Marks and words that the model of `config` has no ids for are no fault
        until a text holds one; bytes are.
        """
        tokenizer = cls(tokenizer_files.build(folder), None if config is None else config.vocab_size)
        vocabulary = tokenizer.inner.get_vocab(with_added_tokens=False)
        largest = max((vocabulary.get(letter, 0) for letter in BYTE_OF_LETTER), default=0)
        if config is not None and largest >= config.vocab_size:  # any text may need any byte
            raise ValueError(f"{folder}: the tokenizer has {tokenizer.size} ids, the model {config.vocab_size}")
        return tokenizer

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def end_of_text(self) -> int | None:
        """The id of ``<|endoftext|>``; None if the vocabulary has none."""
        return self.inner.token_to_id(END_OF_TEXT)

    @property
    def special_ids(self) -> list[int]:
        """The ids of special tokens, which are not text: ``<|endoftext|>`` and others that a tokenizer has added."""
        return [token for token, added in self.inner.get_added_tokens_decoder().items() if added.special]

    @property
    def ids(self) -> list[int]:
        """Every id that stands for something, in order."""
        return sorted(set(self.inner.get_vocab(with_added_tokens=True).values()))

    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        allowed_special: Special | None = None,
        disallowed_special: Special | None = None,
    ) -> list[int]:
        """Return the ids of a text, as transformers' ``tokenizer(text)["input_ids"]`` does.

        What ``add_bos_token`` and its like in the tokenizer's files put around a text is there too, unless
        `add_special_tokens` is off: a part of a text gets nothing at its ends. Two surrogates that make one character
        count as that. ``ValueError`` for text that UTF-8 can't carry, or that the vocabulary can't: it may lack some
        bytes; and for a mark that the model has no id for.

        Every mark in the text, such as ``<|endoftext|>``, becomes its id, as in transformers. Where either of
        `allowed_special` and `disallowed_special` is given, marks are treated as tiktoken treats them, for text that
        isn't to be trusted: those allowed (none, unless given) become their ids; one that is disallowed (all others,
        unless given) is a ``ValueError``; what is neither is text like any other. Each is a collection of marks, or
        "all"; nothing is put around a text then.
        """
        if SURROGATE.search(text):
            text = joined(text)
        if allowed_special is not None or disallowed_special is not None:
            ids = self._guarded(
                text, allowed_special or (), "all" if disallowed_special is None else disallowed_special
            )
        else:
            ids = self.inner.encode(text, add_special_tokens=add_special_tokens).ids
        if self._unspeakable and not self._unspeakable.isdisjoint(text.encode()) and not self._carries(text, ids):
            raise ValueError(
                f"the tokenizer must be a byte-level BPE with a token for each byte, got one that can't "
                f"carry {text[:40]!r}"
            )
        if self.ids_of_model is not None and ids and max(ids) >= self.ids_of_model:
            raise ValueError(
                f"the text holds {self.inner.id_to_token(max(ids))!r}, id {max(ids)} of the tokenizer, but the model "
                f"has {self.ids_of_model} ids"
            )
        return ids

    def _guarded(self, text: str, allowed_special: Special, disallowed_special: Special) -> list[int]:
        """tiktoken's ``Encoding.encode``: which marks become ids, which are refused, which are text."""
        decoder = self.inner.get_added_tokens_decoder()
        marks = {added.content: token for token, added in decoder.items() if added.special}
        allowed = set(marks if allowed_special == "all" else marks.keys() & set(allowed_special))
        refused = marks.keys() - allowed if disallowed_special == "all" else marks.keys() & set(disallowed_special)
        found = re.search(alternatives(refused), text) if refused else None
        if found is not None:
            raise ValueError(
                f"text must not hold the mark {found[0]!r}: name it in allowed_special, or leave it out of "
                "disallowed_special, where it then is text like any other"
            )
        ids: list[int] = []
        for part in re.split(f"({alternatives(allowed)})", text) if allowed else [text]:
            if part in allowed:
                ids.append(marks[part])
            elif part:
                ids += self._without_marks.encode(part, add_special_tokens=False).ids
        return ids

    @cached_property
    def _without_marks(self) -> Inner:
        """The same, with marks that are text like any other."""
        copied = copy.copy(self.inner)
        copied.encode_special_tokens = True
        return copied

    def _carries(self, text: str, ids: Sequence[int]) -> bool:
        """Tell whether ids represent all of a text except white space, which special tokens may absorb and prefixes
        add.
        """
        return b"".join(b"".join(map(self.bytes_of, ids)).split()) == b"".join(text.encode().split())

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, ``<|endoftext|>`` included; invalid UTF-8 becomes U+FFFD."""
        return b"".join(self.bytes_of(token) for token in ids).decode("utf-8", errors="replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return each id's own text, for tables and pictures."""
        return [self.bytes_of(token).decode("utf-8", errors="replace") for token in ids]

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that one id stands for; none for an unused id.

        If all letters of a token stand for bytes, the result is those bytes; otherwise it is the token's own text, as
        for added tokens: the tokenizers library's byte-level decoder does the same. ``ValueError`` for an id that can't
        exist.
        """
        if token not in self._bytes_of:
            if not 0 <= token <= tokenizer_files.LARGEST_ID:
                raise ValueError(f"ids must be between 0 and {tokenizer_files.LARGEST_ID}, got {token}")
            letters = self.inner.id_to_token(int(token)) or ""
            spelt = [BYTE_OF_LETTER.get(letter, -1) for letter in letters]
            self._bytes_of[token] = letters.encode() if -1 in spelt else bytes(spelt)
        return self._bytes_of[token]

    def streamer(self) -> TextStreamer:
        """Return an object that turns ids into text as they come."""
        return TextStreamer(self)


def alternatives(marks: Iterable[str]) -> str:
    """The pattern of any of these marks, longer ones first."""
    return "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))


def joined(text: str) -> str:
    """A text whose pairs of surrogates are the characters that they stand for; ``ValueError`` where one is alone."""
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("text must be valid Unicode, got a lone surrogate") from None


class TextStreamer(Readable):
    """Turns ids into text as they come, and holds incomplete characters back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Return the text that is certain once this id is known; it may be empty."""
        return self._decoder.decode(self.tokenizer.bytes_of(token))

    def finish(self) -> str:
        """Return what is left at the end: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)

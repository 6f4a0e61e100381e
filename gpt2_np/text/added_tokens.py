"""Added tokens: strings that are always one id each, whatever is around them, as in the ``tokenizers`` library.

The source is ``AddedVocabulary`` of that library (``tokenizer/added_vocabulary.rs``), whose behaviour is reproduced
exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..display import Readable
from .byte_level_bpe import WHITE_SPACE, category


@dataclass(eq=False)
class AddedToken:
    """An added token and how it matches: `lstrip` and `rstrip` absorb white space, `single_word` needs word boundaries.

    `normalized` tokens are searched for after all others, in the normalizer's output; None means those that aren't
    `special`. A `special` token is not part of the text.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False

    def __str__(self) -> str:
        return self.content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddedToken) and self.flags() == other.flags() and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def flags(self) -> dict[str, bool]:
        """The options of its matching, fully determined: the fields that ``tokenizer.json`` has beside ``content``."""
        return {
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": not self.special if self.normalized is None else self.normalized,
            "special": self.special,
        }


class AddedTokens(Readable):
    """Added tokens on top of a vocabulary, with their ids."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary
        self.ids: dict[str, int] = {}
        self.by_id: dict[int, AddedToken] = {}
        self._special: dict[str, AddedToken] = {}
        self._others: list[AddedToken] = []
        self._patterns: list[re.Pattern[str] | None] = [None, None]

    def add(self, tokens: Sequence[AddedToken]) -> None:
        """Add tokens: one that exists already keeps its id, any other gets the next free one."""
        for token in tokens:
            if token.special and token.content:
                self._special.setdefault(token.content, token)
        for token in tokens:
            if not token.content or token in self.by_id.values():
                continue
            number = self.id_of(token.content)
            if number is None:
                number = max(len(self.vocabulary), max(self.ids.values(), default=-1) + 1)
            self.ids[token.content], self.by_id[number] = number, token
            if token.content not in self._special:
                self._others.append(token)
        every = [*self._special.values(), *self._others]
        for after in (False, True):
            texts = {token.content for token in every if token.flags()["normalized"] is after}
            longest_first = sorted(texts, key=len, reverse=True)
            self._patterns[after] = re.compile("|".join(map(re.escape, longest_first))) if texts else None

    def id_of(self, token: str) -> int | None:
        """Return the id of an added token or of a token of the vocabulary."""
        found = self.ids.get(token)
        return self.vocabulary.get(token) if found is None else found

    def split(self, text: str, *, split_special: bool) -> Iterator[int | str]:
        """Split a text into ids of added tokens and the text between them; with `split_special` special tokens are
        text.
        """
        for piece in self._split(text, self._patterns[False], split_special):
            if isinstance(piece, str):
                yield from self._split(piece, self._patterns[True], split_special)
            else:
                yield piece

    def _split(self, text: str, pattern: re.Pattern[str] | None, split_special: bool) -> Iterator[int | str]:
        done = 0  # a token may begin before it, where the previous one has absorbed white space that is also a token
        for found in pattern.finditer(text) if pattern is not None else ():
            start, stop = found.span()
            number = self.ids[found[0]]
            token = self.by_id[number]
            if split_special and token.content in self._special:
                continue
            if token.single_word and (_is_word(text[:start][-1:]) or _is_word(text[stop : stop + 1])):
                continue
            if token.lstrip:
                while start > 0 and text[start - 1] in WHITE_SPACE:
                    start -= 1
                start = max(start, done)
            if token.rstrip:
                while stop < len(text) and text[stop] in WHITE_SPACE:
                    stop += 1
            if done < start:
                yield text[done:start]
            if start < stop:
                yield number
            done = stop
        if done < len(text):
            yield text[done:]


# Circled and squared letters are alphabetic in Unicode, although their category is symbol.
_ALPHABETIC_SIGNS = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))


def _is_word(character: str) -> bool:
    r"""Tell whether a character, if any, is part of a word: ``\w`` of Rust's regular expressions (UTS 18, annex C)."""
    if not character:
        return False
    kind = category(character)
    by_kind = kind[0] in "LM" or kind in ("N", "Nd", "Nl", "Pc") or character in "\u200c\u200d"
    return by_kind or any(first <= ord(character) <= last for first, last in _ALPHABETIC_SIGNS)

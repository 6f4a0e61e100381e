"""GPT-2's byte-level BPE in plain Python, which gives the same ids as the ``tokenizers`` library.

Read it beside section 2.2 of Radford et al. 2019 and OpenAI's ``encoder.py``: a text is split into pieces (a word with
the space before it, a number, punctuation, white space), the UTF-8 bytes of a piece are written as printable letters,
and neighbours are merged, the pair of the lowest rank first, until no pair has a rank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from ..display import Readable

# ---- bytes as letters -----------------------------------------------------------------------------------------------


def _letters() -> dict[str, int]:
    """Return the letter that stands for each byte in a BPE file → the byte (``bytes_to_unicode`` of OpenAI's
    encoder.py).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF_LETTER = _letters()
_LETTER_OF_BYTE = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}


def spelt(piece: str) -> str:
    """Return a text's UTF-8 bytes, one letter each. ``UnicodeEncodeError`` for a lone surrogate, which UTF-8 can't
    encode.
    """
    return piece.encode().decode("latin-1").translate(_LETTER_OF_BYTE)


# ---- pieces of a text -----------------------------------------------------------------------------------------------

# OpenAI's pattern, with A-Za-z for \p{L}, 0-9 for \p{N}, and ASCII white space for \s. Python's `re` has no Unicode
# categories, so every other character is replaced by a stand-in of its category before the pattern is applied.
PIECE = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)

# White_Space in Unicode's PropList.txt. Python's own \s has U+001C to U+001F besides.
WHITE_SPACE = frozenset(map(chr, [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)])) | frozenset(
    "\u2028\u2029\u202f\u205f\u3000"
)

# Letters and numbers added in Unicode 14 to 16, which older Pythons (3.10 has Unicode 13) regard as unassigned.
NEWER_LETTERS = """
870-887 889-88E 8B5 8C8-8C9 C5D CDD 170D 171F 1B4C 1C89-1C8A 2C2F 2C5F 9FFD-9FFF A7C0-A7C1 A7CB-A7CD A7D0-A7D1 A7D3
A7D5-A7DC A7F2-A7F4 10570-1057A 1057C-1058A 1058C-10592 10594-10595 10597-105A1 105A3-105B1 105B3-105B9 105BB-105BC
105C0-105F3 10780-10785 10787-107B0 107B2-107BA 10D4A-10D65 10D6F-10D85 10EC2-10EC4 10F70-10F81 11071-11072 11075
1123F-11240 11380-11389 1138B 1138E 11390-113B5 113B7 113D1 113D3 11740-11746 11AB0-11ABF 11BC0-11BE0 11F02 11F04-11F10
11F12-11F33 12F90-12FF0 1342F 13441-13446 13460-143FA 16100-1611D 16A70-16ABE 16D40-16D6C 18CFF 1AFF0-1AFF3 1AFF5-1AFFB
1AFFD-1AFFE 1B11F-1B122 1B132 1B155 1DF00-1DF1E 1DF25-1DF2A 1E030-1E06D 1E290-1E2AD 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0
1E7E0-1E7E6 1E7E8-1E7EB 1E7ED-1E7EE 1E7F0-1E7FE 2A6DE-2A6DF 2B735-2B739 2EBF0-2EE5D 31350-323AF
"""
NEWER_NUMBERS = """
10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16AC0-16AC9 16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3 1E4F0-1E4F9
1E5F1-1E5FA
"""


def _ranges(text: str) -> list[tuple[int, int]]:
    ends = [one.split("-") for one in text.split()]
    return [(int(one[0], 16), int(one[-1], 16)) for one in ends]


_NEWER = {"L": _ranges(NEWER_LETTERS), "N": _ranges(NEWER_NUMBERS)}


def category(character: str) -> str:
    """Return Unicode's general category of a character (``"Lu"``, ``"Nd"``, …); a newer letter or number is "L" or
    "N".
    """
    found, code = unicodedata.category(character), ord(character)
    if found == "Cn":
        return next((kind for kind, known in _NEWER.items() if any(a <= code <= b for a, b in known)), found)
    return found


class _StandIns(dict[int, str]):
    """A table for ``str.translate`` that maps each character to an ASCII character of its kind, and ASCII to itself."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code >= 128:
            kinds = {"L": "A", "N": "0"}  # "A" begins no contraction
            character = "\t" if character in WHITE_SPACE else kinds.get(category(character)[0], "!")
        self[code] = character
        return character


_STAND_INS = _StandIns()


def pieces(text: str) -> Iterator[str]:
    """Split a text at the boundaries that no merge may cross; the pieces add up to the text."""
    if text.isascii():
        return iter(PIECE.findall(text))
    return (text[found.start() : found.end()] for found in PIECE.finditer(text.translate(_STAND_INS)))


# ---- merges ---------------------------------------------------------------------------------------------------------

KNOWN = 1 << 15  # pieces whose ids are cached
LONGEST = 256  # letters of a piece that is cached


class BytePairs(Readable):
    """Tokens, and pairs of tokens in the order in which they are merged.

    `vocabulary` maps tokens, written in letters, to ids. With `ignore_merges` a piece that is a token is that token,
    whatever its merges would give. A letter that is no token becomes the token `unknown`, and several in a row one
    token with `fuse_unknown`; without such a token, it is left out. ``ValueError`` for a merge of, or into, something
    that is no token.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        ignore_merges: bool = False,
        unknown: str | None = None,
        fuse_unknown: bool = False,
    ) -> None:
        self.vocabulary, self.pairs, self.ignore_merges = vocabulary, merges, ignore_merges
        self.unknown, self.fuse_unknown = unknown, fuse_unknown
        self.token_of = {number: token for token, number in vocabulary.items()}
        self.merges: dict[tuple[int, int], tuple[int, int]] = {}  # two ids → rank, id of both together
        for rank, (left, right) in enumerate(merges):
            for token in (left, right, left + right):
                if token not in vocabulary:
                    raise ValueError(f"merge {rank + 1} needs the token {token!r:.60}, which is not in the vocabulary")
            self.merges[vocabulary[left], vocabulary[right]] = rank, vocabulary[left + right]
        self._known: dict[str, list[int]] = {}

    def encode(self, piece: str) -> list[int]:
        """Return the ids of one piece of text. ``ValueError`` if `unknown` is needed and is no token itself."""
        known = self._known.get(piece)
        if known is None:
            word = spelt(piece)
            whole = self.vocabulary.get(word) if self.ignore_merges else None
            known = self._merged(self._tokens(word)) if whole is None else [whole]
            if len(self._known) < KNOWN and len(piece) < LONGEST:
                self._known[piece] = known
        return known

    def _tokens(self, word: str) -> list[int]:
        """Return one token per letter, before any merge."""
        ids: list[int] = []
        fusing = False
        for letter in word:
            number = self.vocabulary.get(letter)
            if number is not None:
                ids.append(number)
            elif self.unknown is not None and not (fusing and self.fuse_unknown):
                if self.unknown not in self.vocabulary:
                    raise ValueError(f"the vocabulary lacks {letter!r}, and {self.unknown!r}, which is to stand for it")
                ids.append(self.vocabulary[self.unknown])
            fusing = number is None
        return ids

    def _merged(self, ids: list[int]) -> list[int]:
        """Merge neighbours, the pair of the lowest rank first and the leftmost of equal ones; `ids` is overwritten.

        The pairs are in a heap, so that a piece of n letters takes n log n steps. Entries of the heap may be out of
        date: a merge is done only if its two tokens are still neighbours.
        """
        end, merges = len(ids), self.merges
        following, before = list(range(1, end + 1)), list(range(-1, end - 1))
        waiting = [(*merges[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in merges]
        waiting = [(rank, place, new) for rank, new, place in waiting]
        heapify(waiting)
        while waiting:
            _, place, new = heappop(waiting)
            right = following[place]
            if ids[place] < 0 or right == end or merges.get((ids[place], ids[right]), (0, -1))[1] != new:
                continue
            ids[place], ids[right] = new, -1
            following[place] = after = following[right]
            if after < end:
                before[after] = place
            for left in (before[place], place):
                if left >= 0 and following[left] < end:
                    found = merges.get((ids[left], ids[following[left]]))
                    if found is not None:
                        heappush(waiting, (found[0], left, found[1]))
        return [token for token in ids if token >= 0]

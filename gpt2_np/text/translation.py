"""Draft models of another vocabulary: their logits, told in the ids of the model that they draft for.

Tokens that both vocabularies spell alike are told apart by their spelling; of the others a draft model here says
nothing. Timor et al. 2025, "Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies", algorithm 4
(token-level intersection), as transformers' ``UniversalSpeculativeDecodingGenerator`` for sampling. Since a draft is
drawn from what is told here, whatever that is, keeping it by rejection leaves the model's own distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..display import Readable
from .tokenizer import Tokenizer

Array = np.ndarray


class Between(NamedTuple):
    """Two vocabularies: the tokenizers, the (n,) ids of the tokens that both have, the size of the model's own."""

    ours: Tokenizer
    theirs: Tokenizer
    our_ids: Array
    their_ids: Array
    vocabulary: int

    def __repr__(self) -> str:
        return f"Between({len(self.our_ids)} tokens of {self.vocabulary} are shared)"


@lru_cache(maxsize=8)
def between(ours: Tokenizer, theirs: Tokenizer, vocabulary: int, their_vocabulary: int) -> Between | None:
    """Return what two tokenizers share, or None if they have the same tokens and ids. ``ValueError`` if they share
    nothing.
    """
    mine, other = spelt(ours, vocabulary), spelt(theirs, their_vocabulary)
    if vocabulary == their_vocabulary and mine == other:
        return None
    shared = [(token, other[spelling]) for spelling, token in mine.items() if spelling in other]
    if not shared:
        raise ValueError("assistant_model must have some token that the model has too; their vocabularies share none")
    both = np.array(shared)
    return Between(ours, theirs, both[:, 0], both[:, 1], vocabulary)


def spelt(tokenizer: Tokenizer, vocabulary: int) -> dict[tuple[bool, bytes], int]:
    """Each token's id by its bytes, marks apart from text that is spelt like them."""
    marks = set(tokenizer.special_ids)
    found: dict[tuple[bool, bytes], int] = {}
    for token in tokenizer.ids:
        if token < vocabulary:
            found.setdefault((token in marks, tokenizer.bytes_of(token)), token)
    return found


class Translated(Readable):
    """A stepper of one row in the model's ids, which asks a stepper of another vocabulary: `start` makes that.

    The text is encoded anew at each step, and only what changed of it is fed. A text that the other model has no room
    for is cut at its beginning, half a context at a time.
    """

    def __init__(self, start: Callable[[], Any], between: Between) -> None:
        self.stepper, self.between = start(), between
        self.room: int = getattr(self.stepper, "capacity", 2**31)
        self.ids: list[int] = []  # the text in the model's ids
        self.held: list[int] = []  # what the other stepper was fed

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        """Continue the row; (1, V) logits in the model's ids, −inf for what the other model has no token for."""
        self.ids += ids[0]
        logits = self.ask(self.encoded())
        out = np.full((1, self.between.vocabulary), -np.inf, logits.dtype)
        out[:, self.between.our_ids] = logits[:, self.between.their_ids]
        return out

    def rewind(self, counts: Sequence[int]) -> None:
        """Forget the last ids."""
        del self.ids[len(self.ids) - counts[0] :]

    def encoded(self) -> list[int]:
        """The text in the other model's ids, as much as it has room for; half a character at the end is left out."""
        ours, theirs = self.between.ours, self.between.theirs
        text = b"".join(map(ours.bytes_of, self.ids)).decode("utf-8", errors="ignore")
        found = theirs.encode(text, add_special_tokens=False) or [theirs.end_of_text or 0]
        if len(found) <= self.room:
            return found
        half = max(1, self.room // 2)
        return found[-(-(len(found) - self.room) // half) * half :]

    def ask(self, text: list[int]) -> Array:
        """The other model's (1, V) logits after a text, only what is new in it being fed."""
        same = min(len(self.held), len(text) - 1)
        if self.held[:same] != text[:same]:
            same = next(place for place, (old, new) in enumerate(zip(self.held, text, strict=False)) if old != new)
        if same < len(self.held):
            self.stepper.rewind([len(self.held) - same])
        logits: Array = self.stepper.feed([text[same:]])
        self.held = text
        return logits

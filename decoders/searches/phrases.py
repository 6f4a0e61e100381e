"""Phrases that a text must contain: the progress of a text with them, and the tokens that advance it.

Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation", as transformers 4 counts it
(``ConstraintListState``, ``PhrasalConstraint``, ``DisjunctiveConstraint``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Choice = tuple[tuple[int, ...], ...]  # phrases of which one must occur; a single phrase is a choice of one


def choices(forced: Sequence[Any]) -> tuple[Choice, ...]:
    """``force_words_ids`` as choices: a list of ids is a phrase, a list of such lists a choice of phrases."""
    return tuple(tuple(map(tuple, entry)) if isinstance(entry[0], Sequence) else (tuple(entry),) for entry in forced)


def following(choice: Choice, path: Sequence[int]) -> list[int]:
    """Return the tokens that advance a choice by one step after `path`, in the order of its phrases."""
    n = len(path)
    return list(dict.fromkeys(phrase[n] for phrase in choice if len(phrase) > n and phrase[:n] == tuple(path)))


@dataclass
class Progress:
    """The progress of a text with its constraints (``ConstraintListState``).

    At most one choice is under way at a time; a token that breaks it off puts it back at the end of those pending,
    and is itself not looked at again. Tokens of the prompt count.
    """

    longest: int
    pending: list[Choice]
    current: Choice | None = None
    path: list[int] = field(default_factory=list)  # the tokens of `current` so far
    met: int = 0

    @classmethod
    def of(cls, constraints: Sequence[Choice], text: Sequence[int]) -> Progress:
        """Return the progress of a whole text."""
        longest = max(len(phrase) for choice in constraints for phrase in choice)
        progress = cls(longest, list(constraints))
        for token in text:
            progress.add(token)
        return progress

    @property
    def complete(self) -> bool:
        """Whether all constraints are met."""
        return self.current is None and not self.pending

    @property
    def bank(self) -> int:
        """Return how far the text is, in tokens; a choice that is met counts as the longest of all phrases."""
        if self.current is None:
            return self.met * self.longest
        remaining = max(map(len, self.current)) - len(self.path)
        return self.met * self.longest + self.longest - remaining

    def helpful(self) -> list[int]:
        """Return the tokens that advance it."""
        if self.current is not None:
            return following(self.current, self.path)
        return [token for choice in self.pending for token in following(choice, ())]

    def add(self, token: int) -> None:
        """Read one more token of the text."""
        if self.current is None:
            for place, choice in enumerate(self.pending):
                if token in following(choice, ()):
                    self.current, self.path = choice, [token]
                    del self.pending[place]
                    break
            else:
                return
        elif token in following(self.current, self.path):
            self.path.append(token)
        else:
            self.pending.append(self.current)
            self.current, self.path = None, []
            return
        if not following(self.current, self.path):
            self.met += 1
            self.current, self.path = None, []

    def then(self, token: int) -> Progress:
        """Return this progress after one more token.

        The path under way is shared between this and what comes of it, not copied: transformers' ``copy`` does so.
        Where a choice of phrases offers several tokens, those tried later therefore find the path already longer,
        and their banks come out accordingly.
        """
        further = replace(self, pending=list(self.pending))
        further.add(token)
        return further

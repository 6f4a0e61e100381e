"""Stopping conditions besides length: strings, and callables of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import decoders

from .tokenizer import Tokenizer


@dataclass(frozen=True)
class StopString:
    """A condition that holds once the string ends within the newest token (as transformers' ``StopStringCriteria``)."""

    tokenizer: Tokenizer
    string: bytes

    def __call__(self, prompt: Sequence[int], new: Sequence[int]) -> bool:
        newest, before, text = self.tokenizer.bytes_of(new[-1]), b"", [*prompt, *new[:-1]]
        while text and len(before) < len(self.string) - 1:
            before = self.tokenizer.bytes_of(text.pop()) + before
        before = before[max(0, len(before) - len(self.string) + 1) :]
        return self.string in before + newest


def stop_strings(given: Any) -> tuple[str, ...]:
    """Return the option ``stop_strings`` as texts; ``ValueError`` for anything else."""
    if given is not None and not isinstance(given, (str, list, tuple)):
        raise ValueError(f"stop_strings must be a text or a list of texts, got {given!r:.60}")
    texts = (given,) if isinstance(given, str) else tuple(given or ())
    if any(not isinstance(one, str) or not one for one in texts):
        raise ValueError(f"stop_strings must be texts of at least one character, got {list(texts)!r}")
    return texts


def banned_strings(given: Any, tokenizer: Callable[[], Tokenizer]) -> Any:
    """Return the option ``banned_strings`` as an object that finds them in new ids; None if there are none.

    ``ValueError`` for anything but a text, a list of texts, or an object that finds phrases itself.
    """
    if hasattr(given, "begins"):
        return given
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple)) or any(not isinstance(one, str) or not one for one in texts):
        raise ValueError(f"banned_strings must be texts of at least one character, got {given!r:.60}")
    if not texts:
        return None
    from decoders.searches.banned import Banned

    return Banned(tokenizer().bytes_of, tuple(one.encode() for one in texts))


def criteria(given: Any, strings: Sequence[str], tokenizer: Callable[[], Tokenizer]) -> list[decoders.Stopping]:
    """Return the option ``stopping_criteria`` as a list, followed by a condition for each stop string.

    ``ValueError`` for anything that can't be called. `tokenizer` loads the tokenizer, if there are strings.
    """
    several = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    for one in several:
        if not callable(one):
            raise ValueError(
                f"stopping_criteria must be a callable (prompt ids, new ids) -> bool, or a list of some, got {one!r}"
            )
    return [*several, *(StopString(tokenizer(), one.encode()) for one in strings)]

"""Constraints: only texts that an automaton over ids accepts.

The automaton knows what ids stand for; this module only asks it. It speaks of the new ids alone: the prompt is no part
of the constraint. A text ends with an end-of-text only where it is complete, and must where nothing else may follow, so
what ends with "stop" satisfies the constraint. A text cut off by ``max_new_tokens``, the context's end or ``max_time``
ends with "length" and may not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN, Stopping
from ..base.method import Cost, Method, Option, Vectors
from ..base.value_types import ANYTHING

Array = np.ndarray

CONSTRAINT = Option("constraint", ANYTHING, help="Generate only texts that this automaton over ids accepts.")


class Automaton(Protocol):
    """Says what may be written, as a pure function of the new ids: repeated or reordered questions get the same
    answers.
    """

    def following(self, new: Sequence[int]) -> tuple[Array, bool]:
        """Return which ids may come after these new ones, (V,) bool, and whether the text may end here.

        Nothing may follow what is not the beginning of a text that is allowed.
        """
        ...


@dataclass(frozen=True)
class Constraint:
    """Sets −inf for tokens that the automaton doesn't allow; allows end-of-text only where the text is complete."""

    automaton: Automaton
    prompt_length: int
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = np.full_like(scores, FORBIDDEN)
        for row, scored, text in zip(out, scores, ids, strict=True):
            allowed, complete = answer(self.automaton, np.asarray(text)[self.prompt_length :].tolist())
            rule = f"constraint must speak of as many ids as there are scores ({len(scored)})"
            require(len(allowed) == len(scored), rule, len(allowed))
            np.copyto(row, scored, where=allowed)
            for end in self.eos:
                row[end] = scored[end] if complete else FORBIDDEN
        return out

    def __repr__(self) -> str:
        return repr(self.automaton)


def answer(automaton: Automaton, new: Sequence[int]) -> tuple[Array, bool]:
    """Return an automaton's answer for some new ids; ``ValueError`` if it isn't a mask and a bool."""
    found = automaton.following(new)
    pair = isinstance(found, (tuple, list)) and len(found) == 2
    allowed = found[0] if pair else None
    mask = isinstance(allowed, np.ndarray) and allowed.ndim == 1 and allowed.dtype == bool
    fits = mask and isinstance(found[1], (bool, np.bool_))
    require(fits, "constraint must answer with (V,) bool, what may follow, and whether the text may end", found)
    return found[0], bool(found[1])


def stops(
    automaton: Automaton | None, eos: Sequence[int], most: Callable[[int], int], stopping: Sequence[Stopping]
) -> Sequence[Stopping]:
    """Return the condition that ends a text under a constraint: `stopping`, but only where the text is complete.

    `most` maps a prompt's length to the number of new ids that it may get.

    Where there is no end-of-text to be forced, or no room for one, a text ends by itself once nothing may follow.
    """
    if automaton is None:
        return stopping
    ends = list(eos)

    def where_complete(stop: Stopping) -> Stopping:
        return lambda prompt, new: stop(prompt, new) and answer(automaton, new)[1]

    def closed(prompt: Sequence[int], new: Sequence[int]) -> bool:
        if ends and len(new) < most(len(prompt)):
            return False
        allowed, complete = answer(automaton, new)
        return complete and not np.delete(allowed, [end for end in ends if end < len(allowed)]).any()

    return [*map(where_complete, stopping), closed]


def check(options: Any) -> None:
    """It must answer what may follow."""
    automaton = options.constraint is None or hasattr(options.constraint, "following")
    require(automaton, "constraint must be an automaton with a method `following`", options.constraint)


class _Answer:
    """An automaton over 8 ids, as many as the vectors' rows have, that answers the same whatever was written."""

    def __init__(self, tokens: Sequence[int], complete: bool) -> None:
        self.mask, self.complete = np.isin(np.arange(8), tokens), complete

    def following(self, new: Sequence[int]) -> tuple[Array, bool]:
        return self.mask, self.complete


METHODS = (
    Method(
        "constraint",
        options=(CONSTRAINT,),
        make=lambda place, constraint: Constraint(constraint, place.prompt_length, place.eos),
        check=check,
        forbids=True,
        costs=(Cost({"constraint": r"[a-z]+( [a-z]+)*\."}),),
        vectors=(
            Vectors(
                "constraint",
                lambda tokens, complete, eos: Constraint(_Answer(tokens, complete), 0, eos),
                ([[0, 2, 5], False, [3]], [[0, 2, 3], True, [3, 4]]),
            ),
        ),
    ),
)

"""Constraints: only texts that an automaton over ids accepts.

The automaton knows what ids stand for; this module only asks it. It speaks of the new ids alone: the prompt is no part
of the constraint. A text ends with an end-of-text only where it is complete, and must where nothing else may follow, so
what ends with "stop" satisfies the constraint. A text cut off by ``max_new_tokens``, the context's end or ``max_time``
ends with "length" and may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .errors import require
from .interface import NEVER, Stopping

if TYPE_CHECKING:
    from .options import Options

Array = np.ndarray


class Automaton(Protocol):
    """What may be written, as a function of the new ids alone: asked twice, or out of order, it answers the same."""

    def following(self, new: Sequence[int]) -> tuple[Array, bool]:
        """Which ids may come after these new ones, (V,) bool, and whether the text may end here.

        Nothing may follow what is not the beginning of a text that is allowed.
        """
        ...


@dataclass(frozen=True)
class Constraint:
    """−inf for what the automaton doesn't allow; end-of-text where the text is complete, and only there."""

    automaton: Automaton
    prompt_length: int
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = np.full_like(scores, NEVER)
        for row, scored, text in zip(out, scores, ids, strict=True):
            allowed, complete = self.automaton.following(np.asarray(text)[self.prompt_length :].tolist())
            rule = f"constraint must speak of as many ids as there are scores ({len(scored)})"
            require(len(allowed) == len(scored), rule, len(allowed))
            np.copyto(row, scored, where=allowed)
            for end in self.eos:
                row[end] = scored[end] if complete else NEVER
        return out

    def __repr__(self) -> str:
        return repr(self.automaton)


def stops(options: Options, stopping: Sequence[Stopping]) -> Sequence[Stopping]:
    """What ends a text under the options' constraint: `stopping`, but only where the text is complete.

    Where there is no end-of-text to be forced, or no room for one, a text ends by itself once nothing may follow.
    """
    automaton, ends = options.constraint, list(options.eos_token_ids)
    if automaton is None:
        return stopping

    def where_complete(stop: Stopping) -> Stopping:
        return lambda prompt, new: stop(prompt, new) and automaton.following(new)[1]

    def closed(prompt: Sequence[int], new: Sequence[int]) -> bool:
        if ends and len(new) < options.max_new_tokens:
            return False
        allowed, complete = automaton.following(new)
        return complete and not np.delete(allowed, ends).any()

    return [*map(where_complete, stopping), closed]

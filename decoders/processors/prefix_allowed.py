"""Only the tokens that a function of the text allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.interface import NEVER
from ..base.kinds import CALLABLE
from ..base.method import Cost, Method, Option, Vectors

Array = np.ndarray

ALLOWED = Option("prefix_allowed_tokens_fn", CALLABLE, help="Only the ids that this function of the text allows.")


@dataclass(frozen=True)
class PrefixAllowedTokens:
    """Only the tokens that ``allowed(prompt's number, ids so far)`` returns. De Cao et al. 2021.

    Where that leaves none of the prompt's rows a token that was still possible, all that is allowed scores 0.
    """

    allowed: Callable[[int, Array], Sequence[int]]
    prompt: int = 0

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        mask = np.full_like(scores, NEVER)
        for row, seen in zip(mask, ids, strict=True):
            tokens = list(self.allowed(self.prompt, np.asarray(seen)))
            require(bool(tokens), "prefix_allowed_tokens_fn must allow at least one token", tokens)
            row[tokens] = 0
        left = scores + mask
        return left if (left > NEVER).any() else mask


def _by_last(lists: Sequence[Any]) -> Callable[[int, Array], list[int]]:
    """What may follow, by a text's last id: pairs of an id and a list."""
    following = dict(lists)
    return lambda prompt, text: following[int(text[-1])]


METHODS = (
    Method(
        "prefix_allowed_tokens_fn",
        options=(ALLOWED,),
        make=lambda place, prefix_allowed_tokens_fn: PrefixAllowedTokens(prefix_allowed_tokens_fn, place.prompt),
        forbids=True,
        revives=True,
        costs=(Cost({"prefix_allowed_tokens_fn": lambda number, ids: range(1000)}),),
        vectors=(
            Vectors(
                "prefix_allowed_tokens",
                lambda lists: PrefixAllowedTokens(_by_last(lists)),
                ([[[5, [0]], [1, [2, 6, 7]]]],),
            ),
        ),
    ),
)

"""Restricts tokens to those that a function of the text allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require, shown
from ..base.interface import FORBIDDEN
from ..base.method import Cost, Method, Option, Vectors
from ..base.value_types import CALLABLE

Array = np.ndarray

ALLOWED = Option(
    "prefix_allowed_tokens_fn", CALLABLE, help="A function from the ids so far to the ids that may come next."
)


@dataclass(frozen=True)
class PrefixAllowedTokens:
    """Allows only the tokens that ``allowed(prompt's number, ids so far)`` returns. De Cao et al. 2021.

    Where that leaves none of the prompt's rows a token that was still possible, all that is allowed scores 0.
    """

    allowed: Callable[[int, Array], Sequence[int]]
    prompt: int = 0

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        mask = np.full_like(scores, FORBIDDEN)
        for row, seen in zip(mask, ids, strict=True):
            row[answer(self.allowed(self.prompt, np.asarray(seen)), len(row))] = 0
        left = scores + mask
        return left if (left > FORBIDDEN).any() else mask


def answer(tokens: Any, vocabulary: int) -> Any:
    """Return the ids that a function of the text allows; ``ValueError`` if they aren't ids, or outside the
    vocabulary.
    """
    found = tokens if isinstance(tokens, (list, tuple, range, np.ndarray)) else listed(tokens)
    require(len(found) > 0, "prefix_allowed_tokens_fn must allow at least one token", tokens)
    if isinstance(found, np.ndarray):
        fits = found.ndim == 1 and found.dtype.kind in "iu"
    else:
        fits = all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in set(map(type, found)))
    require(fits, "prefix_allowed_tokens_fn must answer with a list of ids", tokens)
    for token in (min(found), max(found)) if not isinstance(found, np.ndarray) else (found.min(), found.max()):
        rule = f"prefix_allowed_tokens_fn must allow ids between 0 and {vocabulary - 1}"
        require(0 <= token < vocabulary, rule, int(token))
    return list(found) if isinstance(found, tuple) else found  # a tuple would count places of several axes


def listed(tokens: Any) -> list[Any]:
    """Return the content of another collection (a set, a tensor); ``ValueError`` for anything else, or a text."""
    try:
        if isinstance(tokens, (str, bytes, dict)):
            raise TypeError
        return tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
    except TypeError:
        raise ValueError(f"prefix_allowed_tokens_fn must answer with a list of ids, got {shown(tokens)}") from None


def _by_last(lists: Sequence[Any]) -> Callable[[int, Array], list[int]]:
    """Return what may follow, by a text's last id: pairs of an id and a list."""
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

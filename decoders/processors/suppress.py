"""Tokens that never occur, or never occur first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Method, Option, Place, Vectors
from ..base.value_types import IDS

Array = np.ndarray

SUPPRESS = Option("suppress_tokens", IDS, off=([],), may_be_empty=False, help="Ids that are never generated.")
AT_BEGIN = Option(
    "begin_suppress_tokens", IDS, off=([],), may_be_empty=False, help="Ids that may not be the first new token."
)


def forbid(scores: Array, tokens: Sequence[int]) -> Array:
    """Return `scores` with −inf for `tokens` (those outside the vocabulary are ignored)."""
    out = scores.copy()
    out[:, [token for token in tokens if token < scores.shape[-1]]] = FORBIDDEN
    return out


@dataclass(frozen=True)
class Suppress:
    """Forbids tokens everywhere."""

    tokens: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.tokens)


@dataclass(frozen=True)
class SuppressAtBegin:
    """Forbids tokens as the first: when the text has exactly `begin` ids."""

    tokens: tuple[int, ...]
    begin: int

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.tokens) if len(ids[0]) == self.begin else scores


def at_begin(place: Place, begin_suppress_tokens: Sequence[int], forced_bos_token_id: int | None) -> SuppressAtBegin:
    """Build the rule for the first place, or for the second if the first token is forced."""
    later = place.prompt_length == 1 and forced_bos_token_id is not None
    return SuppressAtBegin(tuple(begin_suppress_tokens), place.prompt_length + later)


METHODS = (
    Method(
        "suppress_tokens",
        options=(SUPPRESS,),
        make=lambda place, suppress_tokens: Suppress(tuple(suppress_tokens)),
        forbids=True,
        costs=(Cost({"suppress_tokens": list(range(100))}),),
        vectors=(Vectors("suppress_tokens", Suppress, ([[0, 3]],)),),
    ),
    Method(
        "begin_suppress_tokens",
        options=(AT_BEGIN,),
        make=at_begin,
        reads=("forced_bos_token_id",),
        forbids=True,
        costs=(Cost({"begin_suppress_tokens": list(range(100))}),),
        vectors=(Vectors("begin_suppress_tokens", SuppressAtBegin, ([[0, 3], 6], [[0, 3], 5])),),
    ),
)

"""Forced tokens: the first after a text of one id, and the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Method, Option, Vectors
from ..base.value_types import ID, ID_OR_IDS, one_or_more

Array = np.ndarray

BOS = Option("forced_bos_token_id", ID, help="The id that must follow a prompt of one id.")
EOS = Option("forced_eos_token_id", ID_OR_IDS, help="The id that the last token must be, at the maximum length.")


def only(scores: Array, tokens: Sequence[int]) -> Array:
    """Return 0 for `tokens` and −inf for all others."""
    out = np.full_like(scores, FORBIDDEN)
    out[:, list(tokens)] = 0
    return out


@dataclass(frozen=True)
class ForcedBOS:
    """Forces the token that follows a text of one id."""

    token: int

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return only(scores, [self.token]) if len(ids[0]) == 1 else scores


@dataclass(frozen=True)
class ForcedEOS:
    """Forces the last token that fits."""

    max_length: int
    tokens: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return only(scores, self.tokens) if len(ids[0]) == self.max_length - 1 else scores


METHODS = (
    Method(
        "forced_bos_token_id",
        options=(BOS,),
        make=lambda place, forced_bos_token_id: ForcedBOS(forced_bos_token_id),
        forbids=True,
        revives=True,
        forces=True,
        costs=(Cost({"forced_bos_token_id": 5}),),
        vectors=(Vectors("forced_bos", ForcedBOS, ([4],)),),
    ),
    Method(
        "forced_eos_token_id",
        options=(EOS,),
        make=lambda place, forced_eos_token_id: ForcedEOS(place.max_length, tuple(one_or_more(forced_eos_token_id))),
        forbids=True,
        revives=True,
        forces=True,
        costs=(Cost({"forced_eos_token_id": 50_256}),),
        vectors=(Vectors("forced_eos", ForcedEOS, ([7, [2, 4]],)),),
    ),
)

"""Repairs of scores: NaN and infinities are replaced, log-probabilities renormalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import log_softmax
from ..base.method import Cost, Method, Option, Vectors
from ..base.value_types import FLAG

Array = np.ndarray

REMOVE_INVALID = Option(
    "remove_invalid_values", FLAG, default=False, help="Replace NaN by 0 and infinities by the largest finite numbers."
)
RENORMALIZE = Option(
    "renormalize_logits", FLAG, default=False, help="Make the scores log-probabilities again, last of all."
)


@dataclass(frozen=True)
class RemoveInvalid:
    """Replaces NaN by 0, and infinities by the largest finite numbers."""

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        limits = np.finfo(scores.dtype)
        return np.nan_to_num(scores, nan=0.0, posinf=limits.max, neginf=limits.min)


@dataclass(frozen=True)
class Renormalize:
    """Renormalises scores to log-probabilities."""

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return log_softmax(scores)


METHODS = (
    Method(
        "remove_invalid_values",
        options=(REMOVE_INVALID,),
        make=lambda place, remove_invalid_values: RemoveInvalid() if remove_invalid_values else None,
        revives=True,
        costs=(Cost({"remove_invalid_values": True}),),
        vectors=(Vectors("remove_invalid_values", RemoveInvalid, ([],)),),
    ),
    Method(
        "renormalize_logits",
        options=(RENORMALIZE,),
        make=lambda place, renormalize_logits: Renormalize() if renormalize_logits else None,
        last=True,
        costs=(Cost({"renormalize_logits": True}),),
        vectors=(Vectors("renormalize", Renormalize, ([],)),),
    ),
)

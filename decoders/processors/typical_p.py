"""Locally typical sampling: tokens whose surprise is near the distribution's entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import log_softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.ranking import glimpses, highest
from ..base.value_types import NUMBER
from .truncation import KEPT_IN_BEAMS, SORTING, cumulative, removed, spared

Array = np.ndarray

TYPICAL_P = Option(
    "typical_p",
    NUMBER,
    interval="(0, 1]",
    off=(1,),
    group="Sampling",
    help="Keep only tokens of typical surprise, up to this much probability.",
)


@dataclass(frozen=True)
class Typical:
    """Keeps the tokens whose surprisal is nearest to the distribution's entropy, until their mass reaches typical_p.

    Meister et al. 2022. The likeliest token itself may go.
    """

    typical_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TYPICAL_P.check(self.typical_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        logp = log_softmax(scores)
        p = np.exp(logp)
        entropy = -(np.maximum(logp, np.finfo(logp.dtype).min) * p).sum(axis=-1, keepdims=True)  # −inf weighs nothing
        distance = np.abs(logp + entropy)
        farthest = np.array([[self.farthest(*row)] for row in zip(distance, p, strict=True)], distance.dtype)
        return removed(scores, spared(distance > farthest, -distance, self.min_tokens_to_keep))

    def farthest(self, distance: Array, p: Array) -> float:
        """Return the greatest distance from the entropy that is kept. Usually few tokens decide, so only they are
        sorted.
        """
        for n in glimpses(len(distance)):
            order = highest(-distance, n)
            enough = np.flatnonzero(cumulative(p[order]) >= p.dtype.type(self.typical_p))
            if len(enough):
                return float(distance[order[enough[0]]])
        return float(distance[order[-1]])


METHODS = (
    Method(
        "typical_p",
        options=(TYPICAL_P,),
        make=lambda place, typical_p: Typical(typical_p, place.keep) if typical_p < 1 else None,
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "typical_p",
                what=(
                    "Tokens whose surprise is nearest to the entropy are kept, up to a probability mass; the "
                    "likeliest may be removed."
                ),
                formula=r"|{-\ln p_i} - H|",
                source="Meister et al. 2023",
                when="Against bland text: tokens that are too predictable may be removed too.",
                example={"typical_p": 0.5},
                random=True,
            ),
        ),
        costs=(Cost({"typical_p": 0.9}, reason="entropy and distance of every token; " + SORTING),),
        vectors=(Vectors("typical_p", Typical, ([0.2], [0.8], [0.2, 3], *([0.1, keep] for keep in KEPT_IN_BEAMS))),),
    ),
)

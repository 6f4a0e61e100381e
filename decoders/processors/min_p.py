"""Min-p: a truncation relative to the best token's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from .truncation import COPYING, KEPT_IN_BEAMS, removed, spared

Array = np.ndarray

MIN_P = Option(
    "min_p",
    NUMBER,
    interval="[0, 1]",
    off=(0,),
    group="Sampling",
    help="Keep only tokens of at least this share of the best token's probability.",
)


@dataclass(frozen=True)
class MinP:
    """Keeps tokens that are at least min_p times as likely as the best one. Nguyen et al. 2024."""

    min_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        MIN_P.check(self.min_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p = softmax(scores)
        remove = p < p.dtype.type(self.min_p) * p.max(axis=-1, keepdims=True)
        return removed(scores, spared(remove, p, self.min_tokens_to_keep))


METHODS = (
    Method(
        "min_p",
        options=(MIN_P,),
        make=lambda place, min_p: MinP(min_p, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "min_p",
                what="Tokens of at least a fraction of the best token's probability are kept.",
                formula=r"p_i \ge m \cdot \max_j p_j",
                source="Nguyen et al. 2024",
                when="With high temperatures: it stays strict where the model is sure.",
                example={"min_p": 0.15},
                random=True,
            ),
        ),
        costs=(Cost({"min_p": 0.05}, reason=COPYING),),
        vectors=(Vectors("min_p", MinP, ([0.3], [0.9, 2], *([1.0, keep] for keep in KEPT_IN_BEAMS))),),
    ),
)

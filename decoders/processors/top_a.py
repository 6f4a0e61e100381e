"""Top-a: a truncation whose threshold is the square of the best token's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from .truncation import COPYING, removed, spared

Array = np.ndarray

TOP_A = Option(
    "top_a",
    NUMBER,
    interval="[0, 1]",
    off=(0,),
    group="Samplers of other engines",
    help="Keep only tokens of at least this times the best token's probability squared.",
)


@dataclass(frozen=True)
class TopA:
    """Keeps tokens whose probability is at least a · max(p)²: fewer where the model is sure, more where it isn't.

    BlinkDL's, as KoboldAI and text-generation-webui have it.
    """

    top_a: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TOP_A.check(self.top_a)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p = softmax(scores)
        remove = p < p.max(axis=-1, keepdims=True) ** 2 * p.dtype.type(self.top_a)
        return removed(scores, spared(remove, scores, self.min_tokens_to_keep))


METHODS = (
    Method(
        "top_a",
        options=(TOP_A,),
        make=lambda place, top_a: TopA(top_a, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "top_a",
                what="Tokens of at least a fraction of the best token's probability squared are kept.",
                formula=r"p_i \ge a \cdot (\max_j p_j)^2",
                source="BlinkDL 2022; KoboldAI",
                when="As min_p, but it keeps more tokens where none is likely; 0.1 to 0.5.",
                example={"top_a": 0.5},
                random=True,
            ),
        ),
        costs=(Cost({"top_a": 0.2}, reason=COPYING),),
        vectors=(Vectors("top_a", TopA, ([0.3], [1.0], [0.9, 2])),),
    ),
)

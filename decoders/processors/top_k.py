"""Top-k: the k best tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.ranking import reaching
from ..base.value_types import WHOLE
from .truncation import KEPT_IN_BEAMS, kept

Array = np.ndarray

TOP_K = Option(
    "top_k", WHOLE, interval="[1, inf)", off=(0,), group="Sampling", help="Keep only the k likeliest tokens."
)


@dataclass(frozen=True)
class TopK:
    """Keeps the k best tokens, and all that tie with the k-th. Fan et al. 2018."""

    top_k: int
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TOP_K.check(self.top_k)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        count = max(self.top_k, self.min_tokens_to_keep)
        return kept(scores, lambda row: reaching(row, count))


METHODS = (
    Method(
        "top_k",
        options=(TOP_K,),
        make=lambda place, top_k: TopK(top_k, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "top_k",
                what="The k likeliest tokens are kept, and those that tie with the last of them.",
                formula=r"z_i \ge z_{(k)}",
                source="Fan, Lewis, Dauphin 2018",
                when="A cheap guard against nonsense; k doesn't know how sure the model is.",
                example={"top_k": 5},
                random=True,
            ),
        ),
        costs=(Cost({"top_k": 50}),),
        vectors=(Vectors("top_k", TopK, ([1], [2], [99], *([1, keep] for keep in KEPT_IN_BEAMS))),),
    ),
)

"""Top-H: the best tokens, as many as a share of the distribution's entropy allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import log_softmax, softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.ranking import highest
from ..base.value_types import NUMBER
from .truncation import cumulative, removed

Array = np.ndarray

TOP_H = Option(
    "top_h",
    NUMBER,
    interval="(0, 1]",
    group="Sampling",
    help="Keep only the best tokens, up to this share of the distribution's entropy.",
)


@dataclass(frozen=True)
class TopH:
    """Keeps the best tokens while their entropy stays within a share of the distribution's; the first is always kept.

    Potraghloo et al. 2025. Only the 100 best are looked at, renormalised among themselves.
    """

    top_h: float

    def __post_init__(self) -> None:
        TOP_H.check(self.top_h)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        order = np.stack([highest(row, 100) for row in scores])
        best = np.take_along_axis(scores, order, -1)
        p, logp = softmax(best), np.maximum(log_softmax(best), np.finfo(scores.dtype).min)
        entropy = -(p * logp).sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            stays = cumulative(-p * np.log(p)) <= entropy * scores.dtype.type(self.top_h)
        stays[:, 0] = True
        keep = np.zeros(scores.shape, bool)
        np.put_along_axis(keep, order, stays, axis=-1)
        return removed(scores, ~keep)


METHODS = (
    Method(
        "top_h",
        options=(TOP_H,),
        make=lambda place, top_h: TopH(top_h),
        only="sampling",
        documentation=(
            Documentation(
                "top_h",
                what="The best tokens are kept while their entropy is at most a share of the distribution's.",
                formula=r"H(\text{kept}) \le h \cdot H",
                source="Potraghloo et al. 2025",
                when="To bound how random a step can be, whatever the number of tokens.",
                example={"top_h": 0.4},
                random=True,
            ),
        ),
        costs=(Cost({"top_h": 0.4}),),
        vectors=(Vectors("top_h", TopH, ([0.4], [0.8])),),
    ),
)

"""Tail-free sampling: the tail starts where the curve of sorted probabilities flattens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from .truncation import SORTING, at_least, cumulative, removed

Array = np.ndarray

TFS = Option(
    "tfs",
    NUMBER,
    interval="[0, 1]",
    off=(1,),
    group="Samplers of other engines",
    help="Tail-free sampling: cut the sorted probabilities where this share of their curvature is used up.",
)


@dataclass(frozen=True)
class TailFree:
    """From the best downwards, tokens stay until the share z of all curvature is passed. Phénix and Egan 2019.

    The curvature is the absolute second difference of the sorted probabilities. That of three neighbours decides about
    the one in the middle, so the best always stays and the last never (text-generation-webui's
    ``TailFreeLogitsWarper``); llama.cpp, while it had it, kept one token less.
    """

    tfs: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TFS.check(self.tfs)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf in the tail."""
        ordered = np.sort(row)[::-1]
        p = softmax(ordered)
        curvature = np.abs(np.diff(p, 2))
        total = curvature.sum()
        # Where nothing bends, no share is passed.
        inside = cumulative(curvature / total) <= p.dtype.type(self.tfs) if total > 0 else np.ones(len(curvature), bool)
        count = min(max(1 + np.count_nonzero(inside), self.min_tokens_to_keep), len(row))
        kept = row > ordered[count - 1]
        kept[np.flatnonzero(row == ordered[count - 1])[: count - np.count_nonzero(kept)]] = True
        return removed(row, ~kept)


METHODS = (
    Method(
        "tfs",
        options=(TFS,),
        make=lambda place, tfs: TailFree(tfs, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "tfs",
                what=(
                    "Tail-free sampling: the sorted probabilities are cut where a given share of their curvature is "
                    "used up."
                ),
                formula=r"\sum_{j \le i} \lvert \Delta^2 p_{(j)}\rvert \le z \sum_j \lvert \Delta^2 p_{(j)}\rvert",
                source="Phénix and Egan 2019",
                when="Instead of top_p, where the tail is long and flat; 0.9 to 0.97.",
                example={"tfs": 0.9},
                random=True,
            ),
        ),
        costs=(Cost({"tfs": 0.95}, reason=SORTING),),
        vectors=(Vectors("tail_free", TailFree, ([0.3], [0.95], [0.1, 4])),),
    ),
)

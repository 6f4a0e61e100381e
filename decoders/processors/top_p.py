"""Top-p: the nucleus, the smallest set of best tokens that holds a share of the probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.ranking import glimpses, top
from ..base.value_types import NUMBER
from .truncation import KEPT_IN_BEAMS, SORTING, kept

Array = np.ndarray

TOP_P = Option(
    "top_p",
    NUMBER,
    interval="(0, 1]",
    off=(1,),
    group="Sampling",
    help="Nucleus sampling: keep only the smallest set of best tokens whose probabilities sum to more than this.",
)


@dataclass(frozen=True)
class TopP:
    """Keeps the nucleus: the smallest set of best tokens whose probability exceeds p. Holtzman et al. 2020.

    Sorted upwards and summed, as transformers does: what has a cumulative probability of at most 1 − p goes, of equals
    the first. Only finite scores are sorted, since −inf adds nothing to any sum.
    """

    top_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TOP_P.check(self.top_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return kept(scores, self.nucleus)

    def nucleus(self, row: Array) -> Array:
        """Return the places of (V,) scores that are in the nucleus, in order; all places if no score is finite."""
        finite = row > FORBIDDEN
        count = np.count_nonzero(finite)
        if not count:
            return np.arange(len(row))
        if count < len(row) // 8:  # after another truncation: the others needn't be looked at any more
            (places,) = finite.nonzero()
            return places[self.chosen(row[places], row[places])]
        return self.chosen(row, row if count == len(row) else row[finite])

    def chosen(self, row: Array, finite: Array) -> Array:
        """Return the places of what is kept of some scores, in order, given the finite ones among them."""
        lowest, count = self.cut(finite)
        (places,) = (row >= lowest).nonzero()
        surplus = len(places) - count
        return np.delete(places, np.flatnonzero(row[places] == lowest)[:surplus]) if surplus else places

    def cut(self, finite: Array) -> tuple[Array, int]:
        """Return the lowest score that is kept, and how many are kept.

        Few of the best decide in most cases, so only they are sorted: what is below a score sums to what is left when
        the scores above it are taken from everything.
        """
        threshold, highest = finite.dtype.type(1 - self.top_p), finite.max()
        e = np.exp(finite - highest)
        weight = e.sum()
        total = (e / weight).sum(dtype=np.float64)
        for n in glimpses(len(finite)):
            values = top(finite, n)
            p = (np.exp(values - highest) / weight).astype(np.float64)
            upwards = (total - (np.cumsum(p) - p)).astype(finite.dtype)
            count = max(int(np.count_nonzero(upwards > threshold)), min(self.min_tokens_to_keep, n))
            if count < n:
                break
        return values[count - 1], count


METHODS = (
    Method(
        "top_p",
        options=(TOP_P,),
        make=lambda place, top_p: TopP(top_p, place.keep) if top_p < 1 else None,
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "top_p",
                what=(
                    "Nucleus sampling: the smallest set of best tokens whose probabilities sum to more than p is kept."
                ),
                formula=r"\sum_{i \in V_p} p_i > p",
                source="Holtzman et al. 2020",
                when="The usual choice for open text, with p from 0.9 to 0.95.",
                example={"top_p": 0.6},
                random=True,
            ),
        ),
        costs=(Cost({"top_p": 0.95}, reason=SORTING),),
        vectors=(Vectors("top_p", TopP, ([0.1], [0.6], [0.95], *([0.1, keep] for keep in KEPT_IN_BEAMS))),),
    ),
)

"""Min-k: the best tokens, up to the steepest drop of the sorted scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.ranking import glimpses, nth, top
from ..base.value_types import FLAG, NUMBER
from .truncation import SORTING, at_least, removed

Array = np.ndarray

GROUP = "Samplers of other engines"
MIN_K = Option(
    "min_k", FLAG, False, group=GROUP, help="Keep only the best tokens, up to the steepest drop in their sorted scores."
)
TAU = Option(
    "min_k_tau",
    NUMBER,
    otherwise=3.0,
    interval="[0, inf)",
    needs=("min_k",),
    group=GROUP,
    help="Keep at least this many tokens where all scores lie within 1, half as many within 2.",
)


@dataclass(frozen=True)
class MinK:
    """Keeps the best scores. Sorted downwards they are l_1 to l_V; kept are those up to the i at which (l_i − l_{i+1})
    / (l_1 − l_V) / i is greatest, at least ⌊τ / (l_1 − l_V)⌋ of them, and those that tie with the last.

    Ding et al. 2026, "Min-k Sampling: Decoupling Truncation from Temperature Scaling via Relative Logit Dynamics".
    Where the drop is doesn't depend on a temperature. It acts before one, so that τ doesn't either, as in the paper.
    """

    min_k_tau: float = 3.0
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TAU.check(self.min_k_tau)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([removed(row, row < nth(row, self.count(row))) for row in scores])

    def count(self, row: Array) -> int:
        """Return how many of (V,) scores are kept."""
        there = row if row.min() > FORBIDDEN else row[row > FORBIDDEN]
        least = max(1, min(self.min_tokens_to_keep, len(there)))
        reach = float(there.max()) - float(there.min())
        if reach == 0:
            return len(there)
        least = max(least, int(min(self.min_k_tau / reach, len(there))))
        for n in glimpses(len(there)):  # the drop is mostly among few of the best
            ordered = top(there, n)
            drops = (ordered[:-1] - ordered[1:]) / ordered.dtype.type(reach) / np.arange(1, n, dtype=ordered.dtype)
            cliff = int(drops.argmax())
            if n == len(there) or drops[cliff] > (float(ordered[-1]) - float(there.min())) / reach / n:
                break
        return max(cliff + 1, least)


METHODS = (
    Method(
        "min_k",
        options=(MIN_K, TAU),
        make=lambda place, min_k_tau: MinK(min_k_tau, place.keep),
        unread=("min_k",),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "min_k",
                what="The best tokens are kept, up to the steepest drop in the sorted scores; early drops count more.",
                formula=r"k = \arg\max_i \frac{z_{(i)} - z_{(i+1)}}{z_{(1)} - z_{(V)}} \cdot \frac{1}{i}",
                source="Ding et al. 2026",
                when="Before any temperature, even a very high one: the set doesn't depend on it.",
                example={"min_k": True},
                random=True,
                prompt="The old man said that he",
            ),
        ),
        costs=(Cost({"min_k": True}, reason=SORTING),),
        vectors=(Vectors("min_k", MinK, ([3.0], [0.0], [40.0], [3.0, 4])),),
    ),
)

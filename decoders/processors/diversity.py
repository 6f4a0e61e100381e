"""Hamming diversity: tokens that other groups of beams chose in the same step become less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.method import Cost, Method, Vectors

Array = np.ndarray


@dataclass(frozen=True)
class HammingDiversity:
    """Subtracts the penalty from a token once for each time it is in `taken`, the other groups' choices of this step.

    Vijayakumar et al. 2018, section 3. The list is the search's own, and changes between calls.
    """

    penalty: float
    taken: Sequence[int]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        counts = np.bincount(np.array(self.taken, np.int64), minlength=scores.shape[-1])
        return scores - scores.dtype.type(self.penalty) * counts.astype(scores.dtype)


METHODS = (
    Method(
        "diversity_penalty",
        options=(),  # diverse beam search states it
        make=lambda place, diversity_penalty: HammingDiversity(diversity_penalty, place.taken),
        asked=("diversity_penalty",),
        reads=("diversity_penalty",),
        costs=(Cost({"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 1.0}),),
        vectors=(Vectors("diversity_penalty", HammingDiversity, ([0.75, [2, 0, 2]],)),),
    ),
)

"""Top-nσ: scores within some standard deviations of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from .truncation import removed

Array = np.ndarray

TOP_N_SIGMA = Option(
    "top_n_sigma",
    NUMBER,
    interval="(0, inf)",
    group="Samplers of other engines",
    help="Keep only tokens whose logits are at most this many standard deviations below the best.",
)


@dataclass(frozen=True)
class TopNSigma:
    """Keeps scores less than n standard deviations below the best. ``llama_sampler_top_n_sigma_apply``.

    Tang et al. 2024, "Top-nσ". The deviation is the population's, over what is not −inf.
    """

    top_n_sigma: float

    def __post_init__(self) -> None:
        TOP_N_SIGMA.check(self.top_n_sigma)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        there = scores > FORBIDDEN
        deviation = np.std(scores, axis=-1, where=there, keepdims=True, dtype=np.float64)
        return removed(scores, scores < scores.max(axis=-1, keepdims=True) - self.top_n_sigma * deviation)


METHODS = (
    Method(
        "top_n_sigma",
        options=(TOP_N_SIGMA,),
        make=lambda place, top_n_sigma: TopNSigma(top_n_sigma),
        only="sampling",
        documentation=(
            Documentation(
                "top_n_sigma",
                what="Tokens less than n standard deviations below the best score are kept.",
                formula=r"z_i \ge \max_j z_j - n\,\sigma(z)",
                source="Tang et al. 2024",
                when="Before any temperature: the set doesn't depend on it.",
                example={"top_n_sigma": 1.0},
                random=True,
            ),
        ),
        costs=(Cost({"top_n_sigma": 1.0}),),
        vectors=(Vectors("llama.cpp top_n_sigma", TopNSigma, ([0.5], [1.0])),),
    ),
)

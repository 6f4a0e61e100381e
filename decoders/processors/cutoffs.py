"""Epsilon and eta cutoffs: too unlikely tokens are removed, by a fixed limit or one that follows the entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import log_softmax, softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from .truncation import COPYING, KEPT_IN_BEAMS, kth_largest, removed

Array = np.ndarray

EPSILON_CUTOFF = Option(
    "epsilon_cutoff",
    NUMBER,
    interval="(0, 1)",
    off=(0, 1),
    group="Sampling",
    help="Keep only tokens of at least this probability.",
)
ETA_CUTOFF = Option(
    "eta_cutoff",
    NUMBER,
    interval="(0, 1)",
    off=(0, 1),
    group="Sampling",
    help="As --epsilon-cutoff, with a threshold that falls where the entropy is high.",
)


@dataclass(frozen=True)
class EpsilonCutoff:
    """Removes tokens that are less likely than epsilon. Hewitt et al. 2022."""

    epsilon_cutoff: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        EPSILON_CUTOFF.check(self.epsilon_cutoff)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        unlikely = softmax(scores) < scores.dtype.type(self.epsilon_cutoff)
        return removed(scores, unlikely & (scores < kth_largest(scores, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class EtaCutoff:
    """Removes tokens that are less likely than min(ε, √ε·e^−H), where H is the entropy. Hewitt et al. 2022, section
    3.2.
    """

    eta_cutoff: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        ETA_CUTOFF.check(self.eta_cutoff)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p, logp = softmax(scores), log_softmax(scores)
        # torch's Categorical clamps −inf to the smallest float before it takes the entropy
        entropy = -(p * np.maximum(logp, np.finfo(logp.dtype).min)).sum(axis=-1, keepdims=True)
        epsilon = scores.dtype.type(self.eta_cutoff)
        unlikely = p < np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-entropy))
        return removed(scores, unlikely & (scores < kth_largest(scores, self.min_tokens_to_keep)))


METHODS = (
    Method(
        "epsilon_cutoff",
        options=(EPSILON_CUTOFF,),
        make=lambda place, epsilon_cutoff: EpsilonCutoff(epsilon_cutoff, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "epsilon_cutoff",
                what="Tokens less likely than a fixed ε are removed.",
                formula=r"p_i \ge \varepsilon",
                source="Hewitt et al. 2022",
                when="A gentle cut of the far tail alone (3e-4 to 9e-4; larger here, to show).",
                example={"epsilon_cutoff": 0.02},
                random=True,
            ),
        ),
        costs=(Cost({"epsilon_cutoff": 3e-4}),),
        vectors=(Vectors("epsilon_cutoff", EpsilonCutoff, ([0.1], *([0.9, keep] for keep in KEPT_IN_BEAMS))),),
    ),
    Method(
        "eta_cutoff",
        options=(ETA_CUTOFF,),
        make=lambda place, eta_cutoff: EtaCutoff(eta_cutoff, place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "eta_cutoff",
                what="As epsilon, but the threshold is lower where the entropy is high.",
                formula=r"p_i \ge \min(\varepsilon, \sqrt{\varepsilon}\,e^{-H})",
                source="Hewitt et al. 2022, section 3.2",
                when="As epsilon, where many tokens may rightly be unlikely.",
                example={"eta_cutoff": 0.1},
                random=True,
            ),
        ),
        costs=(Cost({"eta_cutoff": 3e-4}, reason=COPYING),),
        vectors=(Vectors("eta_cutoff", EtaCutoff, ([0.2], *([0.9, keep] for keep in KEPT_IN_BEAMS))),),
    ),
)

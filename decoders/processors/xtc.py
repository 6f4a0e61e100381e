"""XTC, exclude top choices: the likeliest tokens are excluded with some probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN, softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.ranking import best
from ..base.value_types import IDS, NUMBER
from .truncation import at_least, removed

Array = np.ndarray

PROBABILITY = Option(
    "xtc_probability",
    NUMBER,
    interval="[0, 1]",
    off=(0,),
    group="Samplers of other engines",
    help="XTC: the probability with which the top choices are excluded at a step.",
)
THRESHOLD = Option(
    "xtc_threshold",
    NUMBER,
    otherwise=0.1,
    interval="[0, 1]",
    needs=("xtc_probability",),
    group="Samplers of other engines",
    help="XTC: the probability from which a token is a top choice.",
)
SPECIAL = Option(
    "xtc_special_tokens",
    IDS,
    needs=("xtc_probability",),
    help="XTC: nothing is removed where one of these ids would be.",
)


@dataclass(frozen=True)
class XTC:
    """Excludes top choices: with a probability, of the tokens that reach the threshold only the least likely stays.

    ``llama_sampler_xtc_apply``; p-e-w's "Exclude Top Choices". The coin is ``coin()``, uniform in [0, 1), once a row
    that has two tokens to choose from: llama.cpp's own stream of coins is not reproduced. A threshold above one half
    never acts. Where a special token, a newline or an end-of-text say, would be excluded, nothing is
    (text-generation-webui's rule).
    """

    probability: float
    threshold: float
    coin: Callable[[], float]
    min_tokens_to_keep: int = 1
    special: Sequence[int] = ()

    def __post_init__(self) -> None:
        PROBABILITY.check(self.probability)
        THRESHOLD.check(self.threshold)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for the top choices, where the coin says so."""
        there = np.count_nonzero(row > FORBIDDEN)
        if self.probability == 0 or self.threshold > 0.5 or there < 2 or self.coin() > self.probability:
            return row
        p = softmax(row)
        choices = np.count_nonzero((p >= p.dtype.type(self.threshold)) & (row > FORBIDDEN))
        if choices < 2 or there - (choices - 1) < self.min_tokens_to_keep:
            return row
        excluded = best(row, choices - 1)
        return row if excluded[list(self.special)].any() else removed(row, excluded)


def coins(place: Place, seed: int | None) -> Callable[[], float]:
    """Yield one prompt's coins: numbers uniform in [0, 1), the same for the same seed and prompt number."""
    return np.random.default_rng(None if seed is None else [seed, place.prompt]).random


def make(
    place: Place,
    xtc_probability: float,
    xtc_threshold: float,
    xtc_special_tokens: Sequence[int] | None,
    seed: int | None,
) -> XTC:
    """Build XTC with the prompt's own coin."""
    return XTC(xtc_probability, xtc_threshold, coins(place, seed), place.keep, tuple(xtc_special_tokens or ()))


METHODS = (
    Method(
        "xtc_probability",
        options=(PROBABILITY, THRESHOLD, SPECIAL),
        make=make,
        reads=("seed",),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "xtc_probability",
                what="With a given probability all top choices except the least likely one are removed.",
                formula=r"\{i : p_i \ge t\} \text{ but the least likely}",
                source="p-e-w 2024; llama.cpp, `llama_sampler_xtc_apply`",
                when="For surprising turns in stories; combine it with min_p, which guards the tail.",
                example={"xtc_probability": 1.0, "xtc_threshold": 0.08},
                random=True,
            ),
        ),
        costs=(Cost({"xtc_probability": 1.0, "seed": 1}),),
        vectors=(
            Vectors(
                "llama.cpp xtc",
                lambda probability, threshold, coin, *keep: XTC(probability, threshold, lambda: coin, *keep),
                ([0.5, 0.1, 0.25], [0.5, 0.1, 0.75], [1.0, 0.05, 0.0, 4]),
            ),
        ),
    ),
)

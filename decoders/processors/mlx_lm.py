"""mlx-lm's order, and its samplers where their ties differ (``mlx_lm/sample_utils.py``, version 0.32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import softmax
from ..base.method import Cost, Place, Profile, Vectors
from ..base.ranking import nth
from . import llama_cpp
from .temperature import OR_ZERO
from .top_p import TOP_P
from .truncation import SORTING, removed
from .xtc import PROBABILITY, THRESHOLD, coins

Array = np.ndarray

AT_MOST_HALF = "[0, 0.5]"  # above it, no two tokens could be top choices


@dataclass(frozen=True)
class TopP:
    """Keeps tokens as `llama_cpp.TopP` does, and also all that tie with the last one kept (``apply_top_p``)."""

    top_p: float

    def __post_init__(self) -> None:
        TOP_P.check(self.top_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, descending = scores.copy(), llama_cpp.TopP(self.top_p)
        for row in out:
            count = min(descending.count(row), len(row))
            row[row < nth(row, count)] = -np.inf
        return out


@dataclass(frozen=True)
class XTC:
    """As `llama_cpp.XTC`, but a top choice is above the threshold, and all that tie with the least likely one stay,
    as do special tokens (``apply_xtc``)."""

    probability: float
    threshold: float
    coin: Callable[[], float]
    special: Sequence[int] = ()

    def __post_init__(self) -> None:
        PROBABILITY.check(self.probability)
        THRESHOLD.check(self.threshold, AT_MOST_HALF)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p = softmax(scores)
        choices = np.where(p > p.dtype.type(self.threshold), p, np.inf)
        thrown = np.array([[self.coin() <= self.probability] for _ in scores])
        excluded = thrown & (p > choices.min(axis=-1, keepdims=True))
        excluded[:, list(self.special)] = False
        return removed(scores, excluded)


def top_p(place: Place, top_p: float) -> TopP | None:
    """Its top-p; nothing at 1."""
    return TopP(top_p) if top_p < 1 else None


def xtc(
    place: Place,
    xtc_probability: float,
    xtc_threshold: float,
    xtc_special_tokens: Sequence[int] | None,
    seed: int | None,
) -> XTC:
    """Its XTC, with the prompt's own coin."""
    return XTC(xtc_probability, xtc_threshold, coins(place, seed), tuple(xtc_special_tokens or ()))


PROFILE = Profile(
    "mlx-lm",
    order=(
        "logit_bias",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "top_p",
        "min_p",
        "xtc_probability",
        "top_k",
        "temperature",
    ),
    makes={"top_p": top_p, "min_p": llama_cpp.min_p, "xtc_probability": xtc, "top_k": llama_cpp.top_k},
    penalty_last_n=20,
    lacks=("dynatemp_range", "prompt_ignore_length", "repetition_penalty_normalize"),
    ranges={"xtc_threshold": AT_MOST_HALF, "temperature": OR_ZERO},
    off={"top_k": "(-inf, 0]", "top_p": "(-inf, 0]", "repetition_penalty": "[0, 0]"},
    keeps=("min_p", "top_k"),
    costs=(
        Cost({"top_p": 0.95, "profile": "mlx-lm"}, title="top_p (mlx-lm)", reason=SORTING),
        Cost({"xtc_probability": 1.0, "profile": "mlx-lm"}, title="xtc_probability (mlx-lm)"),
    ),
    vectors=(
        Vectors("mlx-lm top_p", TopP, ([0.1], [0.6])),
        Vectors(
            "mlx-lm xtc",
            lambda probability, threshold, coin: XTC(probability, threshold, lambda: coin),
            ([0.5, 0.1, 0.25], [0.5, 0.1, 0.75]),
        ),
    ),
)

"""ExLlamaV3's order and habits: its ``ComboSampler`` (``generator/sampler/presets.py`` and ``custom.py``, the kernels
``rep_pen.cu`` and ``sampling_fused.cu``). From the source alone: it was never run beside the engine.

Penalties look at the prompt too, and a range of n at the last n − 1 ids. Ties at a cut stay. Its ``DefaultSampler`` is
another chain: ``order=["min_p", "temperature"], min_p=0.08, temperature=0.8``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.interface import FORBIDDEN, LogitsProcessor
from ..base.method import Cost, Place, Profile, Vectors
from ..base.ranking import nth
from .penalties import RecentPenalty
from .temperature import OR_ZERO
from .top_p import TOP_P
from .truncation import SORTING, masses, removed

Array = np.ndarray


@dataclass(frozen=True)
class TopP:
    """Downwards from the best, tokens stay while their sum, their own share included, is at most p; the best always.

    So the token that crosses p goes, which stays in all other engines. ``SS_TopP``; sums are float32. What ties with
    the last that stays does so too.
    """

    top_p: float

    def __post_init__(self) -> None:
        TOP_P.check(self.top_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for what is beyond p."""
        there = row if row.min() > FORBIDDEN else row[row > FORBIDDEN]
        for n, mass in masses(there):
            count = int(np.count_nonzero(mass <= mass.dtype.type(self.top_p)))
            if count < n:
                break
        return removed(row, row < nth(row, max(1, count)))


def top_p(place: Place, top_p: float) -> TopP | None:
    """Its top-p; nothing at 1."""
    return TopP(top_p) if top_p < 1 else None


def recent(last_n: int | None, **amounts: float) -> LogitsProcessor | None:
    """A penalty over the last n − 1 ids; nothing where that is none."""
    if last_n is None or last_n < 0:
        return RecentPenalty(-1, **amounts)
    return RecentPenalty(last_n - 1, **amounts) if last_n > 1 else None


def repetition(
    place: Place, repetition_penalty: float, penalty_last_n: int | None, **others: Any
) -> LogitsProcessor | None:
    """Its repetition penalty; nothing at 1."""
    return recent(penalty_last_n, repeat=repetition_penalty) if repetition_penalty != 1 else None


def presence(place: Place, presence_penalty: float, penalty_last_n: int | None) -> LogitsProcessor | None:
    """Its presence penalty; nothing at 0."""
    return recent(penalty_last_n, presence=presence_penalty) if presence_penalty else None


def frequency(place: Place, frequency_penalty: float, penalty_last_n: int | None) -> LogitsProcessor | None:
    """Its frequency penalty; nothing at 0."""
    return recent(penalty_last_n, frequency=frequency_penalty) if frequency_penalty else None


PROFILE = Profile(
    "exllamav3",
    order=(
        "constraint",
        "logit_bias",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "temperature",
        "min_p",
        "top_k",
        "top_p",
    ),
    makes={
        "repetition_penalty": repetition,
        "presence_penalty": presence,
        "frequency_penalty": frequency,
        "top_p": top_p,
    },
    lacks=("dynatemp_range", "prompt_ignore_length", "repetition_penalty_normalize"),
    ranges={"temperature": OR_ZERO},
    off={"top_k": "(-inf, 0]"},
    costs=(
        Cost({"repetition_penalty": 1.2, "profile": "exllamav3"}, title="repetition_penalty (exllamav3)"),
        Cost({"presence_penalty": 0.5, "profile": "exllamav3"}, title="presence_penalty (exllamav3)"),
        Cost({"frequency_penalty": 0.5, "profile": "exllamav3"}, title="frequency_penalty (exllamav3)"),
        Cost({"top_p": 0.95, "profile": "exllamav3"}, title="top_p (exllamav3)", reason=SORTING),
    ),
    vectors=(Vectors("exllamav3 top_p", TopP, ([0.1], [0.6], [0.95])),),
)

"""llama.cpp's order, defaults and samplers where they differ from transformers' (``src/llama-sampling.cpp``).

Its tie rules are reproduced. Tokens that llama.cpp drops from its list of candidates get −inf here. Where it leaves
ties to an unstable sort, the lowest ids count as the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN, softmax
from ..base.method import Cost, Place, Profile, Vectors
from ..base.ranking import best, glimpses, highest
from .min_p import MIN_P
from .temperature import OR_ZERO
from .top_k import TOP_K
from .top_p import TOP_P
from .truncation import SORTING, at_least, masses, removed
from .typical_p import TYPICAL_P

Array = np.ndarray


@dataclass(frozen=True)
class TopK:
    """Keeps exactly the k best tokens. ``llama_sampler_top_k_impl``; CTranslate2 and mlx-lm do likewise."""

    top_k: int

    def __post_init__(self) -> None:
        TOP_K.check(self.top_k)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([removed(row, ~best(row, self.top_k)) for row in scores])


@dataclass(frozen=True)
class TopP:
    """Keeps tokens, from the best downwards, while those before them have less mass than p.

    ``llama_sampler_top_p_apply``, and CTranslate2's ``TopPMask``. Sums are float32.
    """

    top_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TOP_P.check(self.top_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        if self.top_p == 1:
            return scores
        return np.stack([removed(row, ~best(row, self.count(row))) for row in scores])

    def count(self, row: Array) -> int:
        """Return how many of (V,) scores are kept."""
        finite = row if row.min() > FORBIDDEN else row[row > FORBIDDEN]
        for n, mass in masses(finite):
            count = int(np.searchsorted(mass, mass.dtype.type(self.top_p))) + 1
            if count <= n:
                break
        return max(count, self.min_tokens_to_keep)


@dataclass(frozen=True)
class MinP:
    """Keeps tokens that are at least min_p times as likely as the best one, judged on the scores themselves.

    ``llama_sampler_min_p_apply``: score ≥ best + ln p.
    """

    min_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        MIN_P.check(self.min_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        if self.min_p == 0:
            return scores
        lowest = scores.max(axis=-1, keepdims=True) + np.log(scores.dtype.type(self.min_p))
        spared = np.stack([best(row, self.min_tokens_to_keep) for row in scores])
        return removed(scores, (scores < lowest) & ~spared)


@dataclass(frozen=True)
class Typical:
    """Keeps the tokens whose surprisal is nearest to the entropy, until their mass exceeds typical_p.

    ``llama_sampler_typical_apply``. Meister et al. 2022. Unlike in transformers, what ties with the last goes.
    """

    typical_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        TYPICAL_P.check(self.typical_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return scores if self.typical_p == 1 else np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for what isn't typical."""
        there = np.flatnonzero(row > FORBIDDEN)
        p = softmax(row[there])
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(p)
            entropy = np.nansum(p * surprise)
        distance = np.abs(surprise - entropy)
        for n in glimpses(len(there)):  # few of the nearest decide in most cases
            order = highest(-distance, n)
            last = int(np.searchsorted(np.cumsum(p[order]), p.dtype.type(self.typical_p), side="right"))
            if max(last + 1, self.min_tokens_to_keep) <= n:
                break
        out = np.full_like(row, FORBIDDEN)
        kept = there[order[: max(last + 1, self.min_tokens_to_keep)]]
        out[kept] = row[kept]
        return out


def top_k(place: Place, top_k: int) -> TopK:
    """Its top-k, which keeps as many as must be kept."""
    return TopK(max(top_k, place.keep))


def top_p(place: Place, top_p: float) -> TopP | None:
    """Its top-p; nothing at 1."""
    return TopP(top_p, place.keep) if top_p < 1 else None


def min_p(place: Place, min_p: float) -> MinP:
    """Its min-p."""
    return MinP(min_p, place.keep)


def typical_p(place: Place, typical_p: float) -> Typical | None:
    """Its typical sampling; nothing at 1."""
    return Typical(typical_p, place.keep) if typical_p < 1 else None


PROFILE = Profile(
    "llama.cpp",
    order=(
        "constraint",
        "logit_bias",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "dry_multiplier",
        "top_n_sigma",
        "top_k",
        "typical_p",
        "top_p",
        "min_p",
        "xtc_probability",
        "temperature",
        "mirostat",
        "adaptive_target",
    ),
    makes={"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p},
    defaults={"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
    penalty_last_n=64,
    lacks=("xtc_special_tokens", "prompt_ignore_length", "repetition_penalty_normalize"),
    ranges={"temperature": OR_ZERO},
    off={
        "top_k": "(-inf, 0]",
        "top_p": "[1, inf)",
        "min_p": "(-inf, 0]",
        "typical_p": "[1, inf)",
        "top_n_sigma": "(-inf, 0]",
        "xtc_probability": "(-inf, 0]",
        "dynatemp_range": "(-inf, 0]",
        "adaptive_target": "(-inf, 0)",
    },
    keeps=("top_k", "top_p", "min_p", "typical_p", "xtc_probability"),
    costs=(
        Cost({"top_k": 40, "profile": "llama.cpp"}, title="top_k (llama.cpp)"),
        Cost({"top_p": 0.95, "profile": "llama.cpp"}, title="top_p (llama.cpp)", reason=SORTING),
        Cost({"min_p": 0.05, "profile": "llama.cpp"}, title="min_p (llama.cpp)"),
        Cost({"typical_p": 0.9, "profile": "llama.cpp"}, title="typical_p (llama.cpp)", reason=SORTING),
    ),
    vectors=(
        Vectors("llama.cpp top_k", TopK, ([2], [4])),
        Vectors("llama.cpp top_p", TopP, ([0.1], [0.6], [0.1, 3])),
        Vectors("llama.cpp min_p", MinP, ([0.3], [0.9, 2])),
        Vectors("llama.cpp typical_p", Typical, ([0.2], [0.8], [0.2, 3])),
    ),
)

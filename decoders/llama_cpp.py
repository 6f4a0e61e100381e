"""llama.cpp's samplers that only look at the scores (``src/llama-sampling.cpp``), tie rules included.

What llama.cpp drops from its list of candidates is −inf here. Where it leaves the choice among equal scores to an
unstable sort, the lowest ids count as the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import require
from .interface import NEVER, softmax
from .ranking import best, glimpses, highest, top
from .warpers import removed

Array = np.ndarray


def at_least(count: int) -> None:
    """``ValueError`` unless at least one token is kept."""
    require(count >= 1, "min_tokens_to_keep must be at least 1", count)


@dataclass(frozen=True)
class TopK:
    """Exactly the k best stay. ``llama_sampler_top_k_impl``; CTranslate2 and mlx-lm do likewise."""

    top_k: int

    def __post_init__(self) -> None:
        require(self.top_k >= 1, "top_k must be at least 1", self.top_k)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([removed(row, ~best(row, self.top_k)) for row in scores])


@dataclass(frozen=True)
class TopP:
    """Downwards from the best, tokens stay while those before them have less mass than p.

    ``llama_sampler_top_p_apply``, and CTranslate2's ``TopPMask``. Sums are float32.
    """

    top_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.top_p <= 1, "top_p must be in (0, 1]", self.top_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        if self.top_p == 1:
            return scores
        return np.stack([removed(row, ~best(row, self.count(row))) for row in scores])

    def count(self, row: Array) -> int:
        """How many of (V,) scores stay."""
        finite = row if row.min() > NEVER else row[row > NEVER]
        highest = finite.max()
        weight = np.exp(finite - highest).sum()
        for n in glimpses(len(finite)):  # few of the best decide in most cases
            mass = np.cumsum(np.exp(top(finite, n) - highest) / weight)
            count = int(np.searchsorted(mass, mass.dtype.type(self.top_p))) + 1
            if count <= n:
                break
        return max(count, self.min_tokens_to_keep)


@dataclass(frozen=True)
class MinP:
    """What is at least min_p times as likely as the best token stays, judged on the scores themselves.

    ``llama_sampler_min_p_apply``: score ≥ best + ln p.
    """

    min_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.min_p <= 1, "min_p must be in [0, 1]", self.min_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        if self.min_p == 0:
            return scores
        lowest = scores.max(axis=-1, keepdims=True) + np.log(scores.dtype.type(self.min_p))
        spared = np.stack([best(row, self.min_tokens_to_keep) for row in scores])
        return removed(scores, (scores < lowest) & ~spared)


@dataclass(frozen=True)
class Typical:
    """Tokens whose surprise is nearest to the entropy, until their mass exceeds typical_p.

    ``llama_sampler_typical_apply``. Meister et al. 2022. Unlike in transformers, what ties with the last goes.
    """

    typical_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.typical_p <= 1, "typical_p must be in (0, 1]", self.typical_p)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return scores if self.typical_p == 1 else np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for what isn't typical."""
        there = np.flatnonzero(row > NEVER)
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
        out = np.full_like(row, NEVER)
        kept = there[order[: max(last + 1, self.min_tokens_to_keep)]]
        out[kept] = row[kept]
        return out


@dataclass(frozen=True)
class TopNSigma:
    """Scores less than n standard deviations below the best stay. ``llama_sampler_top_n_sigma_apply``.

    Tang et al. 2024, "Top-nσ". The deviation is the population's, over what is not −inf.
    """

    top_n_sigma: float

    def __post_init__(self) -> None:
        require(0 < self.top_n_sigma < np.inf, "top_n_sigma must be above 0", self.top_n_sigma)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        there = scores > NEVER
        deviation = np.std(scores, axis=-1, where=there, keepdims=True, dtype=np.float64)
        return removed(scores, scores < scores.max(axis=-1, keepdims=True) - self.top_n_sigma * deviation)


@dataclass(frozen=True)
class XTC:
    """Excludes top choices: with a probability, of the tokens that reach the threshold only the least likely stays.

    ``llama_sampler_xtc_apply``; p-e-w's "Exclude Top Choices". The coin is ``coin()``, uniform in [0, 1), once a row
    that has two tokens to choose from: llama.cpp's own stream of coins is not reproduced. A threshold above one half
    never acts.
    """

    probability: float
    threshold: float
    coin: Callable[[], float]
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "xtc_probability must be in [0, 1]", self.probability)
        require(0 <= self.threshold <= 1, "xtc_threshold must be in [0, 1]", self.threshold)
        at_least(self.min_tokens_to_keep)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for the top choices, where the coin says so."""
        there = np.count_nonzero(row > NEVER)
        if self.probability == 0 or self.threshold > 0.5 or there < 2 or self.coin() > self.probability:
            return row
        p = softmax(row)
        choices = np.count_nonzero((p >= p.dtype.type(self.threshold)) & (row > NEVER))
        if choices < 2 or there - (choices - 1) < self.min_tokens_to_keep:
            return row
        return removed(row, best(row, choices - 1))


@dataclass(frozen=True)
class DynamicTemperature:
    """A temperature between t − range and t + range: the lower, the surer the distribution is.

    ``llama_sampler_temp_ext_apply``: low + (high − low)·(entropy ÷ its maximum) ** exponent, the maximum being the
    logarithm of how many tokens are left. At temperature 0 only the best stays.
    """

    temperature: float
    range: float
    exponent: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.temperature < np.inf, "temperature must be above 0", self.temperature)
        require(0 < self.range < np.inf, "dynatemp_range must be above 0", self.range)
        require(0 < self.exponent < np.inf, "dynatemp_exponent must be above 0", self.exponent)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores divided by the temperature that their entropy asks for."""
        there = np.count_nonzero(row > NEVER)
        if there < 2:
            return row
        p = softmax(row)
        p = p[p > 0]
        entropy = float(-(p * np.log(p)).sum())
        low, high = max(0.0, self.temperature - self.range), self.temperature + self.range
        temperature = row.dtype.type(low + (high - low) * max(0.0, entropy / np.log(there)) ** self.exponent)
        return row / temperature if temperature > 0 else removed(row, ~best(row, 1))

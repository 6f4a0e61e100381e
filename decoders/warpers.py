"""Warpers: what reshapes or truncates the distribution before a token is drawn.

Each is a small frozen object called with (ids so far, scores) that returns new scores, what it removes being −inf.
They equal transformers' classes of the same purpose (``generation/logits_process.py``), float32 rounding included
as far as NumPy's exponential allows. ``min_tokens_to_keep`` spares the best few, which beam sampling needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import require
from .interface import NEVER, log_softmax, softmax
from .ranking import best, glimpses, highest, nth, top

Array = np.ndarray


def removed(scores: Array, remove: Array) -> Array:
    """`scores` with −inf where `remove`."""
    out, kept = np.full(scores.shape, NEVER, scores.dtype), np.flatnonzero(~remove)
    out.ravel()[kept] = scores.ravel()[kept]  # mostly few stay, and then this is quicker than np.where
    return out


def cumulative(p: Array) -> Array:
    """Cumulative sums along the last axis as torch computes them: added in float64, each rounded to p's dtype."""
    return np.cumsum(p, axis=-1, dtype=np.float64).astype(p.dtype)


def kth_largest(scores: Array, k: int) -> Array:
    """The k-th largest score of each row: (rows, 1)."""
    return np.array([[nth(row, k)] for row in scores], scores.dtype)


def spared(remove: Array, values: Array, keep: int) -> Array:
    """What to remove, but for the `keep` highest of (rows, V) values; the very highest is never among it."""
    if keep == 1:
        return remove
    return remove & ~np.stack([best(row, keep) for row in values])


@dataclass(frozen=True)
class Temperature:
    """Scores divided by the temperature: below 1 sharpens, above 1 flattens. Ackley et al. 1985."""

    temperature: float

    def __post_init__(self) -> None:
        require(0 < self.temperature < np.inf, "temperature must be above 0", self.temperature)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return scores / scores.dtype.type(self.temperature)


@dataclass(frozen=True)
class TopK:
    """The k best stay, and whatever ties with the k-th. Fan et al. 2018."""

    top_k: int
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(self.top_k >= 1, "top_k must be at least 1", self.top_k)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return removed(scores, scores < kth_largest(scores, max(self.top_k, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class TopP:
    """The nucleus stays: the smallest set of best tokens whose probability exceeds p. Holtzman et al. 2020.

    Sorted upwards and summed, as transformers does: what has a cumulative probability of at most 1 − p goes, of equals
    the first. Only finite scores are sorted, since −inf adds nothing to any sum.
    """

    top_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.top_p <= 1, "top_p must be in (0, 1]", self.top_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores with −inf for what is outside the nucleus."""
        finite = row if row.min() > NEVER else row[row > NEVER]
        if not len(finite):
            return row
        lowest, count = self.cut(finite)
        stays = row > lowest
        ties = np.flatnonzero(row == lowest)
        stays[ties[len(ties) - (count - np.count_nonzero(stays)) :]] = True
        return removed(row, ~stays)

    def cut(self, finite: Array) -> tuple[Array, int]:
        """The lowest score that stays, and how many stay.

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


@dataclass(frozen=True)
class MinP:
    """What is at least min_p times as likely as the best token stays. Nguyen et al. 2024."""

    min_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.min_p <= 1, "min_p must be in [0, 1]", self.min_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p = softmax(scores)
        remove = p < p.dtype.type(self.min_p) * p.max(axis=-1, keepdims=True)
        return removed(scores, spared(remove, p, self.min_tokens_to_keep))


@dataclass(frozen=True)
class Typical:
    """Tokens whose surprise is nearest to the distribution's entropy, until their mass reaches typical_p.

    Meister et al. 2022. The likeliest token itself may go.
    """

    typical_p: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.typical_p < 1, "typical_p must be in (0, 1)", self.typical_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        logp = log_softmax(scores)
        p = np.exp(logp)
        entropy = -(np.maximum(logp, np.finfo(logp.dtype).min) * p).sum(axis=-1, keepdims=True)  # −inf weighs nothing
        distance = np.abs(logp + entropy)
        farthest = np.array([[self.farthest(*row)] for row in zip(distance, p, strict=True)], distance.dtype)
        return removed(scores, spared(distance > farthest, -distance, self.min_tokens_to_keep))

    def farthest(self, distance: Array, p: Array) -> float:
        """The greatest distance from the entropy that stays. Mostly few tokens decide, and only they are sorted."""
        for n in glimpses(len(distance)):
            order = highest(-distance, n)
            enough = np.flatnonzero(cumulative(p[order]) >= p.dtype.type(self.typical_p))
            if len(enough):
                return float(distance[order[enough[0]]])
        return float(distance[order[-1]])


@dataclass(frozen=True)
class EpsilonCutoff:
    """What is less likely than epsilon goes. Hewitt et al. 2022."""

    epsilon_cutoff: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.epsilon_cutoff < 1, "epsilon_cutoff must be in (0, 1)", self.epsilon_cutoff)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        unlikely = softmax(scores) < scores.dtype.type(self.epsilon_cutoff)
        return removed(scores, unlikely & (scores < kth_largest(scores, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class EtaCutoff:
    """What is less likely than min(ε, √ε·e^−H) goes, H being the entropy. Hewitt et al. 2022, section 3.2."""

    eta_cutoff: float
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        require(0 < self.eta_cutoff < 1, "eta_cutoff must be in (0, 1)", self.eta_cutoff)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p, logp = softmax(scores), log_softmax(scores)
        # torch's Categorical clamps −inf to the smallest float before it takes the entropy
        entropy = -(p * np.maximum(logp, np.finfo(logp.dtype).min)).sum(axis=-1, keepdims=True)
        epsilon = scores.dtype.type(self.eta_cutoff)
        unlikely = p < np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-entropy))
        return removed(scores, unlikely & (scores < kth_largest(scores, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class TopH:
    """The best tokens while their entropy stays within a share of the distribution's; the first always stays.

    Potraghloo et al. 2025. Only the 100 best are looked at, renormalised among themselves.
    """

    top_h: float

    def __post_init__(self) -> None:
        require(0 < self.top_h <= 1, "top_h must be in (0, 1]", self.top_h)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        order = np.stack([highest(row, 100) for row in scores])
        best = np.take_along_axis(scores, order, -1)
        p, logp = softmax(best), np.maximum(log_softmax(best), np.finfo(scores.dtype).min)
        entropy = -(p * logp).sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            stays = cumulative(-p * np.log(p)) <= entropy * scores.dtype.type(self.top_h)
        stays[:, 0] = True
        keep = np.zeros(scores.shape, bool)
        np.put_along_axis(keep, order, stays, axis=-1)
        return removed(scores, ~keep)


@dataclass(frozen=True)
class Renormalize:
    """Scores as log-probabilities again, whatever came before."""

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return log_softmax(scores)

"""Penalties for what was said before, as llama.cpp has them: over the last n ids, and DRY."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import require

Array = np.ndarray


@dataclass(frozen=True)
class RecentPenalty:
    """Penalties on the tokens among the last `last_n` ids, the prompt's too. ``llama_sampler_penalties_apply``.

    First the repetition penalty (Keskar et al. 2019): positive scores ÷ repeat, others × repeat. Then `presence` is
    subtracted once, `frequency` for each occurrence. mlx-lm's three processors do the same.
    """

    last_n: int
    repeat: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    def __post_init__(self) -> None:
        require(self.last_n >= 1, "penalty_last_n must be at least 1", self.last_n)
        require(self.repeat > 0, "repetition_penalty must be above 0", self.repeat)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, repeat = scores.copy(), scores.dtype.type(self.repeat)
        for row, seen in zip(out, ids, strict=True):
            tokens, counts = np.unique(np.asarray(seen)[-self.last_n :], return_counts=True)
            score = np.where(row[tokens] <= 0, row[tokens] * repeat, row[tokens] / repeat)
            row[tokens] = score - (counts * self.frequency + self.presence).astype(row.dtype)
        return out


@dataclass(frozen=True)
class DRY:
    """Don't repeat yourself: a token that would continue a repetition loses, the more the longer that is.

    ``llama_sampler_dry_apply``, after p-e-w's and pi6am's DRY. Where the text's last L ids occurred before, L ≥
    `allowed_length`, what came next there loses multiplier · base ** (L − allowed_length). L never reaches back over a
    breaker, a sequence of ids, and a breaker of one id is never penalised. `last_n` limits how much of the text counts.
    """

    multiplier: float
    base: float = 1.75
    allowed_length: int = 2
    last_n: int | None = None
    breakers: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        require(0 < self.multiplier < np.inf, "dry_multiplier must be above 0", self.multiplier)
        require(1 <= self.base < np.inf, "dry_base must be at least 1", self.base)
        require(self.allowed_length >= 0, "dry_allowed_length must be at least 0", self.allowed_length)
        require(self.last_n is None or self.last_n >= 1, "dry_penalty_last_n must be at least 1", self.last_n)
        require(all(self.breakers), "dry_sequence_breakers must not hold an empty sequence", self.breakers)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = scores.copy()
        alone = {breaker[0] for breaker in self.breakers if len(breaker) == 1}
        for row, seen in zip(out, ids, strict=True):
            text = np.asarray(seen)[0 if self.last_n is None else -self.last_n :]
            for token, length in self.longest(text).items():
                if token not in alone:
                    row[token] -= self.penalty(length)
        return out

    def penalty(self, length: int) -> np.float32:
        """What a token loses that continues `length` repeated ids, kept from overflowing float32 as llama.cpp does."""
        exponent = length - self.allowed_length
        if self.base > 1.000001:
            exponent = min(exponent, int(88.7228391 / np.log(self.base)))
        with np.errstate(over="ignore"):
            return np.float32(np.float64(self.multiplier) * np.float64(self.base) ** exponent)

    def longest(self, text: Array) -> dict[int, int]:
        """For each token that would continue a repetition: how many of the text's last ids it would lengthen."""
        limit = self.since_breaker(text)
        if len(text) <= self.allowed_length or limit < self.allowed_length:
            return {}
        # `ends` are the places where a copy of the last `length` ids ends; it shrinks as `length` grows.
        ends, last = np.arange(len(text) - 1), len(text) - 1
        repeats = np.zeros(last, np.int64)
        for length in range(limit):
            ends = ends[ends >= length]
            ends = ends[text[ends - length] == text[last - length]]
            if not len(ends):
                break
            repeats[ends] = length + 1
        longest: dict[int, int] = {}
        for place in np.flatnonzero(repeats >= self.allowed_length).tolist():
            token = int(text[place + 1])
            longest[token] = max(longest.get(token, 0), int(repeats[place]))
        return longest

    def since_breaker(self, text: Array) -> int:
        """How many ids follow the last breaker; all of them where there is none."""
        ids = text.tolist()
        heads = {breaker[0] for breaker in self.breakers}
        for back, token in enumerate(reversed(ids)):
            if token in heads:
                start = len(ids) - 1 - back
                lengths = [len(one) for one in self.breakers if tuple(ids[start : start + len(one)]) == one]
                if lengths:
                    return back - max(lengths) + 1
        return len(ids)

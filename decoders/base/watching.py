"""The record of each step: which processor removed how many tokens, and how much probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .interface import FinishReason

Array = np.ndarray

# (which rows, the option, their scores before its processor, their scores after it).
Watch = Callable[[Sequence[int], str, Array, Array], None]


@dataclass(frozen=True)
class Change:
    """The change of one row's distribution by one processor.

    ``removed`` tokens became impossible, which had the probability ``mass`` in the distribution before; ``left`` tokens
    are still possible, and ``entropy`` (nats) is theirs. ``moved`` is the total variation distance, half the sum of the
    absolute differences; it equals ``mass`` if tokens were only removed.
    """

    option: str
    removed: int
    mass: float
    moved: float
    left: int
    entropy: float


@dataclass(frozen=True)
class TokenStep:
    """One chosen token: the model's distribution (``entropy``, nats), and its change by every processor.

    ``logprob`` is the model's own; ``probability`` is the token's after all processors. ``length`` counts the new ids,
    this one included.
    """

    row: int
    length: int
    id: int
    logprob: float
    probability: float
    entropy: float
    changes: tuple[Change, ...]
    finish_reason: FinishReason | None = None


def shares(scores: Array) -> Array:
    """Turn (V,) scores into float64 probabilities; they are all 0 if nothing is possible."""
    scores = scores.astype(np.float64)
    highest = scores.max()
    if not np.isfinite(highest):
        return np.nan_to_num(np.where(scores == highest, 1.0, 0.0)) if highest > 0 else np.zeros_like(scores)
    p: Array = np.exp(scores - highest)
    return p / p.sum()


def entropy(p: Array) -> float:
    """Return the entropy of (V,) probabilities, in nats."""
    there = p[p > 0]
    return max(0.0, float(-(there * np.log(there)).sum()))


def possible(scores: Array) -> Array:
    """Tell which tokens may be chosen: those whose score is neither −inf nor one of the lowest numbers, which mean the
    same.
    """
    return scores > np.finfo(scores.dtype).min * 1e-3


def change(option: str, before: Array, after: Array) -> Change:
    """Return the change from (V,) scores to others."""
    p, q, stays = shares(before), shares(after), possible(after)
    gone = possible(before) & ~stays
    return Change(
        option, int(gone.sum()), float(p[gone].sum()), float(np.abs(p - q).sum() / 2), int(stays.sum()), entropy(q)
    )


def watching(changes: Sequence[list[Change]]) -> Watch:
    """Return a `Watch` that appends to ``changes[row]``."""

    def watch(rows: Sequence[int], option: str, before: Array, after: Array) -> None:
        for row, old, new in zip(rows, before, after, strict=True):
            changes[row].append(change(option, old, new))

    return watch


def token_step(
    row: int,
    length: int,
    token: int,
    logprob: float,
    logits: Array,
    scores: Array,
    changes: Sequence[Change],
    reason: FinishReason | None,
) -> TokenStep:
    """Return one row's step, given the model's (V,) logits and the processed scores."""
    return TokenStep(
        row, length, token, logprob, float(shares(scores)[token]), entropy(shares(logits)), tuple(changes), reason
    )

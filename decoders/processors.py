"""Processors: what forbids, favours or forces tokens, given the text so far.

They equal transformers' classes (``generation/logits_process.py``). In beam search they see log-probabilities, in
greedy decoding and sampling raw logits, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import require
from .interface import NEVER

Array = np.ndarray


def forbid(scores: Array, tokens: Sequence[int]) -> Array:
    """`scores` with −inf for `tokens` (those outside the vocabulary are passed over)."""
    out = scores.copy()
    out[:, [token for token in tokens if token < scores.shape[-1]]] = NEVER
    return out


def only(scores: Array, tokens: Sequence[int]) -> Array:
    """0 for `tokens`, −inf for everything else."""
    out = np.full_like(scores, NEVER)
    out[:, list(tokens)] = 0
    return out


@dataclass(frozen=True)
class RepetitionPenalty:
    """Every token that occurred, in the prompt too, loses: negative scores × penalty, others ÷ penalty.

    Keskar et al. 2019, section 4.1, with the sign handled as transformers does.
    """

    penalty: float

    def __post_init__(self) -> None:
        require(self.penalty > 0, "repetition_penalty must be above 0", self.penalty)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, penalty = scores.copy(), scores.dtype.type(self.penalty)
        for row, seen in zip(out, ids, strict=True):
            seen = np.asarray(seen)
            score = row[seen]
            row[seen] = np.where(score < 0, score * penalty, score / penalty)
        return out


@dataclass(frozen=True)
class OccurrencePenalty:
    """OpenAI's penalties: presence once, frequency for each time a token was generated; the prompt doesn't count."""

    prompt_length: int
    presence: float = 0.0
    frequency: float = 0.0

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = scores.copy()
        for row, seen in zip(out, ids, strict=True):
            tokens, counts = np.unique(np.asarray(seen)[self.prompt_length :], return_counts=True)
            row[tokens] -= self.presence + self.frequency * counts.astype(row.dtype)
        return out


@dataclass(frozen=True)
class NoRepeatNgram:
    """No n-gram occurs twice, the prompt counting too. Paulus et al. 2018, section 2.5."""

    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, "no_repeat_ngram_size must be at least 1", self.size)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = scores.copy()
        for row, seen in zip(out, ids, strict=True):
            seen = np.asarray(seen)
            if len(seen) >= self.size:
                windows = np.lib.stride_tricks.sliding_window_view(seen, self.size)
                again = (windows[:, :-1] == seen[len(seen) - self.size + 1 :]).all(axis=1)
                row[windows[again, -1]] = NEVER
        return out


@dataclass(frozen=True)
class SequenceBias:
    """A bias added to the token that would complete a sequence; single tokens always get theirs."""

    bias: Mapping[tuple[int, ...], float]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        total = np.zeros_like(scores)
        for sequence, value in self.bias.items():
            prefix = np.array(sequence[:-1], np.int64)
            for row, seen in zip(total, ids, strict=True):
                start = len(seen) - len(prefix)
                if start >= 0 and np.array_equal(np.asarray(seen)[start:], prefix):
                    row[sequence[-1]] += value
        return scores + total


@dataclass(frozen=True)
class HammingDiversity:
    """Every token loses the penalty once for each of `taken`: what other groups of beams chose in this step.

    Vijayakumar et al. 2018, section 3. The list is the search's own, and changes between calls.
    """

    penalty: float
    taken: Sequence[int]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        counts = np.bincount(np.array(self.taken, np.int64), minlength=scores.shape[-1])
        return scores - scores.dtype.type(self.penalty) * counts.astype(scores.dtype)


def bad_words(sequences: Sequence[Sequence[int]], eos: Sequence[int]) -> SequenceBias:
    """Sequences that must not occur: each is stopped at its last token. An end-of-text alone is passed over."""
    kept = [tuple(sequence) for sequence in sequences if not (len(sequence) == 1 and sequence[0] in eos)]
    return SequenceBias(dict.fromkeys(kept, NEVER))


@dataclass(frozen=True)
class MinLength:
    """No end-of-text before the text has `length` ids, the prompt included."""

    length: int
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.eos) if len(ids[0]) < self.length else scores


@dataclass(frozen=True)
class PrefixAllowedTokens:
    """Only the tokens that ``allowed(prompt's number, ids so far)`` returns. De Cao et al. 2021.

    Where that leaves none of the prompt's rows a token that was still possible, all that is allowed scores 0.
    """

    allowed: Callable[[int, Array], Sequence[int]]
    prompt: int = 0

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        mask = np.full_like(scores, NEVER)
        for row, seen in zip(mask, ids, strict=True):
            tokens = list(self.allowed(self.prompt, np.asarray(seen)))
            require(bool(tokens), "prefix_allowed_tokens_fn must allow at least one token", tokens)
            row[tokens] = 0
        left = scores + mask
        return left if (left > NEVER).any() else mask


@dataclass(frozen=True)
class ForcedBOS:
    """The token that follows a text of one id."""

    token: int

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return only(scores, [self.token]) if len(ids[0]) == 1 else scores


@dataclass(frozen=True)
class ForcedEOS:
    """What the last token that fits must be."""

    max_length: int
    tokens: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return only(scores, self.tokens) if len(ids[0]) == self.max_length - 1 else scores


@dataclass(frozen=True)
class RemoveInvalid:
    """NaN becomes 0, infinities the largest finite numbers."""

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        limits = np.finfo(scores.dtype)
        return np.nan_to_num(scores, nan=0.0, posinf=limits.max, neginf=limits.min)


@dataclass(frozen=True)
class ExponentialDecayLengthPenalty:
    """End-of-text gains |score|·(factor^i − 1), i ids after `start`, which counts from the prompt's first id."""

    start: int
    factor: float
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        over = len(ids[0]) - self.start
        if over <= 0:
            return scores
        out, eos = scores.copy(), list(self.eos)
        gain = np.abs(scores[:, eos]) * scores.dtype.type(self.factor**over - 1)
        # A score of −inf, or the lowest number that RemoveInvalid puts in its place, is a forbidden token's.
        out[:, eos] += np.where(scores[:, eos] > np.finfo(scores.dtype).min, gain, 0)
        return out


@dataclass(frozen=True)
class Suppress:
    """Tokens that never come."""

    tokens: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.tokens)


@dataclass(frozen=True)
class SuppressAtBegin:
    """Tokens that don't come first: when the text has exactly `begin` ids."""

    tokens: tuple[int, ...]
    begin: int

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.tokens) if len(ids[0]) == self.begin else scores

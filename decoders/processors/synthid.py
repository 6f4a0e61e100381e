"""SynthID's watermark for text and its scores. Dathathri et al. 2024, "Scalable watermarking …", Nature 634.

A hash of the last ids, the candidate and a key gives every candidate one bit a key, its g-values. In as many rounds of
a tournament candidates with a 1 gain what those with a 0 lose; a text whose g-values are more often 1 than chance
allows was written so. As transformers' ``SynthIDTextWatermarkLogitsProcessor`` on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN, softmax
from ..base.value_types import is_list, is_long
from ..random.torch_rng import randint

Array = np.ndarray


@dataclass(frozen=True)
class SynthIDTextWatermarkingConfig:
    """The watermark's settings, with transformers' names; a detector must know all of them.

    `keys` are integers, one a round (20 to 30 are usual); `ngram_len` is how many ids are hashed, the candidate
    included. A context among the last `context_history_size` is not watermarked again. With `num_leaves` 3, which
    transformers hasn't but DeepMind's synthid-text has, three candidates meet in a match: a mark that is easier to
    find, and bends the distribution.
    """

    ngram_len: int
    keys: tuple[int, ...]
    context_history_size: int = 1024
    sampling_table_seed: int = 0
    sampling_table_size: int = 2**16
    skip_first_ngram_calls: bool = False
    num_leaves: int = 2

    def __post_init__(self) -> None:
        keyed = is_list(self.keys) and all(map(is_long, self.keys))
        require(keyed, "keys must be a list of whole numbers of 64 bits", self.keys)
        object.__setattr__(self, "keys", tuple(self.keys))
        for name in ("ngram_len", "context_history_size", "sampling_table_seed", "sampling_table_size"):
            require(is_long(getattr(self, name)), f"{name} must be a whole number of 64 bits", getattr(self, name))
        skips = self.skip_first_ngram_calls
        require(isinstance(skips, bool), "skip_first_ngram_calls must be True or False", skips)
        require(self.ngram_len >= 2, "ngram_len must be at least 2", self.ngram_len)
        require(len(self.keys) > 0, "keys must hold at least one key", self.keys)
        require(self.context_history_size >= 0, "context_history_size must be at least 0", self.context_history_size)
        leaves = self.num_leaves
        require(is_long(leaves) and 2 <= leaves <= 3, "num_leaves must be 2 or 3", leaves)
        size = self.sampling_table_size
        require(1 <= size <= 2**24, f"sampling_table_size must be between 1 and {2**24}", size)

    def g_values(self, hashes: Array) -> Array:
        """Hash contexts with their candidates: (n,) hashes → (n, rounds) bits."""
        keyed = accumulate(hashes[:, None], np.array(self.keys, np.int64)[None])
        return table(self.sampling_table_seed, self.sampling_table_size)[keyed % self.sampling_table_size]


@lru_cache(maxsize=4)
def table(seed: int, size: int) -> Array:
    """Return the bits that hashes choose from."""
    return randint(seed, 2, size).astype(np.int8)


def accumulate(hashes: Array, data: Array) -> Array:
    """One step of the linear congruential hash, in wrapping 64-bit integers."""
    return (hashes + data) * np.int64(6364136223846793005) + np.int64(1)


def hash_ids(grams: Array) -> Array:
    """(n, width) ids → (n,) hashes."""
    hashes = np.ones(len(grams), np.int64)
    for column in grams.T:
        hashes = accumulate(hashes, column)
    return hashes


@dataclass(frozen=True)
class SynthID:
    """The tournament's distribution in place of the model's, as log-probabilities.

    The context starts with zeros and holds new ids alone, as in transformers; unlike there it is read off the text at
    every step, so that it follows a beam. What can't be drawn scores float32's lowest number, not −inf, as there.
    """

    config: SynthIDTextWatermarkingConfig
    prompt_length: int

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack(
            [self.row(np.asarray(text)[self.prompt_length :], row) for text, row in zip(ids, scores, strict=True)]
        )

    def row(self, new: Array, row: Array) -> Array:
        """One row: (V,) scores after the new ids."""
        config = self.config
        first = config.ngram_len - 1 if config.skip_first_ngram_calls else 0
        if len(new) < first:
            return row
        known = np.concatenate([np.zeros(config.ngram_len - 1, np.int64), new])
        contexts = hash_ids(np.lib.stride_tricks.sliding_window_view(known, config.ngram_len - 1)[first:])
        size = config.context_history_size
        history = contexts[:-1][max(0, len(contexts) - 1 - size) :] if size else contexts[:0]
        if contexts[-1] in history or (contexts[-1] == 0 and len(history) < size):
            return row

        there = np.flatnonzero(row > FORBIDDEN)
        p = softmax(row[there])
        for g in config.g_values(accumulate(contexts[-1:], there)).T:
            p = p * self.coefficients(g, (g * p).sum())
        out, possible = np.full_like(row, np.finfo(row.dtype).min), p > 0  # rounding may take p below 0
        out[there[possible]] = np.log(p[possible])
        return out

    def coefficients(self, g: Array, mass: Array) -> Array:
        """Return the factors of one round for (n,) candidates with bits `g`; those with a 1 have probability `mass`.

        Of two leaves, 1 + g − mass. Of N, a candidate with a 1 wins unless no leaf has one, and a candidate with a 0
        only if no other leaf has a 1.
        """
        if self.config.num_leaves == 2:
            return 1 + g - mass
        lost = (1 - mass) ** self.config.num_leaves
        return np.where(g == 1, (1 - lost) / mass if mass > 0 else 0, (1 - mass) ** (self.config.num_leaves - 1))


@dataclass(frozen=True)
class SynthIDDetector:
    """Measures how far a text's g-values are above chance, which is one half."""

    config: SynthIDTextWatermarkingConfig
    eos_token_id: int | None = None

    def g_values(self, ids: Sequence[int]) -> Array:
        """(n,) ids → (n − ngram_len + 1, rounds) bits, one row for each id with a whole context."""
        return self.config.g_values(hash_ids(self._grams(ids, self.config.ngram_len)))

    def mask(self, ids: Sequence[int]) -> Array:
        """Return which rows count: those before an end-of-text whose context is not a repeated one."""
        contexts = hash_ids(self._grams(ids[:-1], self.config.ngram_len - 1)).tolist()
        size, counts = self.config.context_history_size, np.ones(len(contexts), bool)
        for place, context in enumerate(contexts):
            history = contexts[max(0, place - size) : place]
            counts[place] = context not in history and not (context == 0 and len(history) < size)
        if self.eos_token_id is not None and self.eos_token_id in ids:
            counts[max(0, list(ids).index(self.eos_token_id) - self.config.ngram_len + 1) :] = False
        return counts

    def mean_score(self, ids: Sequence[int]) -> float:
        """The mean of the g-values that count (``mean_score`` in DeepMind's synthid-text); NaN where none does."""
        return self._mean(ids, np.ones(len(self.config.keys)))

    def weighted_mean_score(self, ids: Sequence[int], weights: Sequence[float] | None = None) -> float:
        """Return the mean with early rounds weighted more: from 10 down to 1, unless weights are given."""
        chosen = np.linspace(10, 1, len(self.config.keys)) if weights is None else np.array(weights, np.float64)
        rule = f"weights must be {len(self.config.keys)} numbers, one a key"
        require(len(chosen) == len(self.config.keys), rule, len(chosen))
        return self._mean(ids, chosen * len(chosen) / chosen.sum())

    def _mean(self, ids: Sequence[int], weights: Array) -> float:
        values = self.g_values(ids)[self.mask(ids)]
        return float((values * weights).mean()) if len(values) else float("nan")

    def _grams(self, ids: Sequence[int], width: int) -> Array:
        rule = f"a SynthID score needs at least ngram_len ({self.config.ngram_len}) ids"
        require(len(ids) >= width, rule, len(ids))
        return np.lib.stride_tricks.sliding_window_view(np.asarray(ids, np.int64), width)

"""Histograms of many features at once whose range isn't known in advance: it grows with the values."""

from __future__ import annotations

import numpy as np

from ...display import Readable

Array = np.ndarray
BINS = 32  # an even number


class Histograms(Readable):
    """For each of F features how often it was 0, and how often in each of `BINS` equal parts of (0, top].

    ``top`` (F,) is a power of two that all values so far are at most, 0 before the first. When a value is above it,
    bins are put together two by two until it isn't: counts stay exact. Negative values count by their size.
    """

    def __init__(self, features: int) -> None:
        self.zeros = np.zeros(features, np.int64)
        self.counts = np.zeros((features, BINS), np.int64)
        self.top = np.zeros(features)

    def add(self, features: Array) -> None:
        """The features of n tokens, (n, F)."""
        rows, columns = np.nonzero(features)
        values = np.abs(features[rows, columns]).astype(np.float64)
        self.zeros += len(features) - np.bincount(columns, minlength=len(self.zeros))
        most = np.zeros(len(self.top))
        np.maximum.at(most, columns, values)
        self._reach(most)
        # (k · width, (k + 1) · width] is bin k: what equals the top is in the last one.
        bins = np.ceil(values / self.top[columns] * BINS).astype(np.int64) - 1
        np.add.at(self.counts, (columns, np.clip(bins, 0, BINS - 1)), 1)

    def _reach(self, most: Array) -> None:
        """Let every range hold its feature's largest value."""
        powers = np.zeros(len(most))
        powers[most > 0] = 2.0 ** np.ceil(np.log2(most[most > 0]))
        powers = np.where(powers < most, powers * 2, powers)  # where the logarithm was rounded down
        for feature in np.flatnonzero(powers > self.top):
            counts, times = self.counts[feature], 0
            if self.top[feature]:
                times = round(np.log2(powers[feature] / self.top[feature]))
            for _ in range(min(times, BINS)):
                counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.counts[feature], self.top[feature] = counts, powers[feature]

    def edges(self, feature: int) -> Array:
        """The borders of a feature's bins: (BINS + 1,)."""
        return np.linspace(0, self.top[feature], BINS + 1)

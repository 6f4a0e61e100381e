"""Helpers shared by the samplers that remove tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN
from ..base.ranking import best, glimpses, nth, top

Array = np.ndarray
# min_tokens_to_keep of beam sampling with one, two and three end-of-texts, which conformance vectors show.
KEPT_IN_BEAMS = (2, 3, 4)
# Why some of them take more than 1 ms for one token.
SORTING = "where the distribution is nearly flat, all 50,257 must be sorted"
COPYING = "nearly flat: half of all tokens are copied one by one"


def at_least(count: int) -> None:
    """Raise ``ValueError`` unless at least one token is kept."""
    require(count >= 1, "min_tokens_to_keep must be at least 1", count)


def removed(scores: Array, remove: Array) -> Array:
    """Return `scores` with −inf where `remove` is True."""
    out, kept = np.full(scores.shape, FORBIDDEN, scores.dtype), np.flatnonzero(~remove)
    out.ravel()[kept] = scores.ravel()[kept]  # mostly few stay, and then this is quicker than np.where
    return out


def kept(scores: Array, places: Callable[[Array], Array]) -> Array:
    """Return (rows, V) scores with −inf but at the places that a function of each row names."""
    out = np.full(scores.shape, FORBIDDEN, scores.dtype)
    for stays, row in zip(out, scores, strict=True):
        some = places(row)
        stays[some] = row[some]
    return out


def cumulative(p: Array) -> Array:
    """Return cumulative sums along the last axis as torch computes them: in float64, each rounded to p's dtype."""
    return np.cumsum(p, axis=-1, dtype=np.float64).astype(p.dtype)


def masses(scores: Array) -> Iterator[tuple[int, Array]]:
    """Yield n and the cumulative probabilities of the n best of some finite scores, of more each time.

    Few of the best decide in most cases, so only they are sorted. Sums have the scores' dtype.
    """
    highest = scores.max()
    weight = np.exp(scores - highest).sum()
    for n in glimpses(len(scores)):
        yield n, np.cumsum(np.exp(top(scores, n) - highest) / weight)


def kth_largest(scores: Array, k: int) -> Array:
    """Return the k-th largest score of each row: (rows, 1)."""
    return np.array([[nth(row, k)] for row in scores], scores.dtype)


def spared(remove: Array, values: Array, keep: int) -> Array:
    """Return what to remove, except the `keep` highest of (rows, V) values; the very highest is never removed."""
    if keep == 1:
        return remove
    return remove & ~np.stack([best(row, keep) for row in values])

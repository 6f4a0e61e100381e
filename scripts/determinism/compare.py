"""The comparison of two runs: the same bits, or the largest difference, and the first token at which texts differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SAME, NOTHING, UNMEASURED = "same bits", "–", "not measured"


@dataclass(frozen=True)
class Difference:
    """The difference of two runs: whether they have the same bits, the largest difference of the numbers, and the first
    token at which texts differ.

    ``parts`` counts the texts that part, of ``texts``; ``first`` is the earliest token at which one does. ``weights``
    is the largest difference of trained weights, which is no part of ``largest``.
    """

    same: bool
    largest: float
    texts: int = 0
    parts: int = 0
    first: int | None = None
    weights: float | None = None

    def __str__(self) -> str:
        if self.same:
            return SAME
        if self.weights is not None:
            return f"{self.largest:.1e}; weights {self.weights:.1e}"
        if not self.texts:
            return f"{self.largest:.1e}"
        if not self.parts:
            return f"{self.largest:.1e}, same texts"
        return f"{self.largest:.1e}, {self.parts} of {self.texts} texts differ, the first after {self.first} tokens"


def difference(one: Mapping[str, Array], other: Mapping[str, Array]) -> Difference:
    """Compare two runs' arrays of the same names: integer arrays are texts, all others are numbers."""
    names = one.keys() & other.keys()
    assert names, "there is nothing to compare"
    same, largest, texts, parting = True, 0.0, 0, []
    weights: float | None = None
    for name in sorted(names):
        a, b = one[name], other[name]
        if a.dtype.kind == "i":
            texts += 1
            first = parted(a, b)
            parting += [] if first is None else [first]
            same = same and first is None
        else:
            same = same and a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
            # Log-probabilities of texts that part can't be compared behind that place: their own count alone differs.
            if a.shape == b.shape and not name.startswith("logprobs"):
                gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
                if name == "weights":
                    weights = gap
                else:
                    largest = max(largest, gap)
            elif name.startswith("logprobs"):
                until = parted(one[f"text{name[8:]}"], other[f"text{name[8:]}"])
                some = slice(0, len(a) if until is None else until)
                gaps = np.abs(a[some] - b[some])
                largest = max(largest, float(gaps.max()) if gaps.size else 0.0)
    return Difference(same, largest, texts, len(parting), min(parting, default=None), weights)


def parted(one: Array, other: Array) -> int | None:
    """The first token at which two texts differ; None where they don't."""
    if np.array_equal(one, other):
        return None
    shared = min(len(one), len(other))
    apart = np.flatnonzero(one[:shared] != other[:shared])
    return int(apart[0]) if apart.size else shared


def worst(found: Iterable[Difference]) -> Difference:
    """Several comparisons as one: the same bits only where all have them."""
    every = list(found)
    firsts = [one.first for one in every if one.first is not None]
    weights = [one.weights for one in every if one.weights is not None]
    return Difference(
        all(one.same for one in every),
        max(one.largest for one in every),
        max(one.texts for one in every),
        max(one.parts for one in every),
        min(firsts, default=None),
        max(weights, default=None),
    )

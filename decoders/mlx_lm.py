"""mlx-lm's samplers where they differ from llama.cpp's: in their ties (``mlx_lm/sample_utils.py``, version 0.32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import llama_cpp
from .errors import require
from .interface import softmax
from .ranking import nth
from .warpers import removed

Array = np.ndarray


@dataclass(frozen=True)
class TopP:
    """As `llama_cpp.TopP`, but all that tie with the last token that stays do so too (``apply_top_p``)."""

    top_p: float

    def __post_init__(self) -> None:
        require(0 < self.top_p <= 1, "top_p must be in (0, 1]", self.top_p)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, descending = scores.copy(), llama_cpp.TopP(self.top_p)
        for row in out:
            count = min(descending.count(row), len(row))
            row[row < nth(row, count)] = -np.inf
        return out


@dataclass(frozen=True)
class XTC:
    """As `llama_cpp.XTC`, but a top choice is above the threshold, and all that tie with the least likely one stay
    (``apply_xtc``, without special tokens)."""

    probability: float
    threshold: float
    coin: Callable[[], float]

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "xtc_probability must be in [0, 1]", self.probability)
        require(0 <= self.threshold <= 0.5, "xtc_threshold must be in [0, 0.5]", self.threshold)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        p = softmax(scores)
        choices = np.where(p > p.dtype.type(self.threshold), p, np.inf)
        thrown = np.array([[self.coin() <= self.probability] for _ in scores])
        return removed(scores, thrown & (p > choices.min(axis=-1, keepdims=True)))

"""KoboldCpp's order and habits (``SampleLogits`` in ``gpttype_adapter.cpp``, and the defaults in ``koboldcpp.py``, of
version 1.76). From the source alone: it was never run beside the engine.

Its samplers are llama.cpp's of that time. Left out: it keeps no more than the best 5,000 tokens from the start, and DRY
looks at the last 320 ids unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN, softmax
from ..base.method import Cost, Place, Profile, Vectors
from ..base.ranking import best
from . import llama_cpp
from .tail_free import TFS
from .temperature import OR_ZERO
from .truncation import removed

Array = np.ndarray


@dataclass(frozen=True)
class TailFree:
    """As `tail_free.TailFree`, but of what is inside the tail one token less stays. ``sample_tail_free``.

    Sums are float32. Where nothing bends, curvature counts as spread evenly.
    """

    tfs: float

    def __post_init__(self) -> None:
        TFS.check(self.tfs)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([removed(row, ~best(row, self.count(row))) for row in scores])

    def count(self, row: Array) -> int:
        """Return how many of (V,) scores are kept."""
        there = row if row.min() > FORBIDDEN else row[row > FORBIDDEN]
        if self.tfs == 1 or len(there) <= 2:
            return len(there)
        p = softmax(np.sort(there)[::-1])  # values alone: far less work than the tokens' order
        curvature = np.abs(np.diff(p, 2))
        total = curvature.sum()
        share = curvature / total if total > 1e-6 else np.full_like(curvature, 1 / len(curvature))
        passed = int(np.searchsorted(np.cumsum(share), share.dtype.type(self.tfs), side="right"))
        return max(1, passed) if passed < len(share) else len(there)


def tail_free(place: Place, tfs: float) -> TailFree:
    """Its tail-free sampling."""
    return TailFree(tfs)


PROFILE = Profile(
    "koboldcpp",
    order=(
        "logit_bias",
        "constraint",
        "dry_multiplier",
        "repetition_penalty",
        "presence_penalty",
        "top_k",
        "top_a",
        "tfs",
        "typical_p",
        "top_p",
        "min_p",
        "temperature",
        "smoothing_factor",
        "xtc_probability",
        "mirostat",
    ),
    makes={
        "top_k": llama_cpp.top_k,
        "top_p": llama_cpp.top_p,
        "min_p": llama_cpp.min_p,
        "typical_p": llama_cpp.typical_p,
        "tfs": tail_free,
    },
    defaults={"top_k": 100, "top_p": 0.92, "temperature": 0.7},
    penalty_last_n=320,
    lacks=("xtc_special_tokens", "prompt_ignore_length", "repetition_penalty_normalize", "smoothing_curve"),
    ranges={"temperature": OR_ZERO},
    off={
        "top_k": "(-inf, 0]",
        "top_a": "(-inf, 0]",
        "top_p": "[1, inf)",
        "min_p": "(-inf, 0]",
        "typical_p": "[1, inf)",
        "tfs": "[1, inf)",
        "xtc_probability": "(-inf, 0]",
        "dynatemp_range": "(-inf, 0]",
        "smoothing_factor": "(-inf, 0]",
    },
    costs=(Cost({"tfs": 0.95, "profile": "koboldcpp"}, title="tfs (koboldcpp)", reason="all 50,257 must be sorted"),),
    vectors=(Vectors("koboldcpp tfs", TailFree, ([0.3], [0.95], [1.0])),),
)

"""Forbids n-grams that occur twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import FORBIDDEN
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import WHOLE
from .penalties import AGAIN

Array = np.ndarray

SIZE = Option(
    "no_repeat_ngram_size",
    WHOLE,
    interval="[1, inf)",
    off=(0,),
    group="Rules",
    help="Never generate an n-gram of this many tokens twice.",
)


@dataclass(frozen=True)
class NoRepeatNgram:
    """Forbids every n-gram that occurred before, in the prompt too. Paulus et al. 2018, section 2.5."""

    size: int

    def __post_init__(self) -> None:
        SIZE.check(self.size)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = scores.copy()
        for row, seen in zip(out, ids, strict=True):
            forbid_repeats(row, np.asarray(seen), np.asarray(seen), self.size)
        return out


def forbid_repeats(row: Array, seen: Array, past: Array, size: int) -> None:
    """In a row of scores, (V,), forbid in place the tokens that complete an n-gram of `past`, (P,), after `seen`,
    (T,).
    """
    if len(past) >= size:
        windows = np.lib.stride_tricks.sliding_window_view(past, size)
        again = (windows[:, :-1] == seen[len(seen) - size + 1 :]).all(axis=1)
        row[windows[again, -1]] = FORBIDDEN


METHODS = (
    Method(
        "no_repeat_ngram_size",
        options=(SIZE,),
        make=lambda place, no_repeat_ngram_size: NoRepeatNgram(no_repeat_ngram_size),
        forbids=True,
        documentation=(
            Documentation(
                "no_repeat_ngram_size",
                what="No n-gram is generated twice.",
                formula=r"(x_{t-n+1}, \dots, x_t) \notin \text{text}",
                source="Paulus et al. 2018",
                when="A hard stop for loops in beams; 3 or 4.",
                example={"no_repeat_ngram_size": 3},
                prompt=AGAIN,
            ),
        ),
        costs=(Cost({"no_repeat_ngram_size": 3}),),
        vectors=(Vectors("no_repeat_ngram_size", NoRepeatNgram, ([1], [2], [3])),),
    ),
)

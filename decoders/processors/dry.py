"""DRY, don't repeat yourself: tokens that would continue a repetition become less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.errors import require
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import NUMBER, PHRASES, WHOLE
from .penalties import AGAIN

Array = np.ndarray

MULTIPLIER = Option(
    "dry_multiplier",
    NUMBER,
    interval="(0, inf)",
    off=(0,),
    group="Rules",
    help="DRY: penalise tokens that would continue a repetition; 0 turns it off.",
)
BASE = Option(
    "dry_base",
    NUMBER,
    otherwise=1.75,
    interval="[1, inf)",
    needs=("dry_multiplier",),
    group="Rules",
    help="The factor by which the DRY penalty grows with each repeated token.",
)
ALLOWED_LENGTH = Option(
    "dry_allowed_length",
    WHOLE,
    otherwise=2,
    interval="[0, inf)",
    needs=("dry_multiplier",),
    group="Rules",
    help="Repetitions of up to this many tokens are not penalised.",
)
LAST_N = Option(
    "dry_penalty_last_n",
    WHOLE,
    interval="[0, inf)",
    off=(-1,),
    needs=("dry_multiplier",),
    group="Rules",
    help="How many tokens DRY looks back; 0 turns it off.  [default: all]",
)
BREAKERS = Option(
    "dry_sequence_breakers",
    PHRASES,
    needs=("dry_multiplier",),
    may_be_empty=False,
    group="Rules",
    help='A text that ends a repetition; repeatable.  [default: newline : " *]',
    flag="--dry-sequence-breaker",
    metavar="TEXT",
    repeatable=True,
    in_text="Sequence[str | Sequence[int]]",
)


@dataclass(frozen=True)
class DRY:
    """Penalises tokens that would continue a repetition, the more the longer the repetition is.

    ``llama_sampler_dry_apply``, after p-e-w's and pi6am's DRY. Where the text's last L ids occurred before, L ≥
    `allowed_length`, what came next there loses multiplier · base ** (L − allowed_length). L never reaches back over a
    breaker, a sequence of ids, and a breaker of one id is never penalised. `last_n` limits how much of the text counts.
    """

    multiplier: float
    base: float = BASE.otherwise
    allowed_length: int = ALLOWED_LENGTH.otherwise
    last_n: int | None = None
    breakers: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        MULTIPLIER.check(self.multiplier)
        BASE.check(self.base)
        ALLOWED_LENGTH.check(self.allowed_length)
        if self.last_n is not None:
            LAST_N.check(self.last_n, "[1, inf)")
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
        """Return the penalty of a token that continues `length` repeated ids, limited to float32 as in llama.cpp."""
        exponent = length - self.allowed_length
        if self.base > 1.000001:
            exponent = min(exponent, int(88.7228391 / np.log(self.base)))
        with np.errstate(over="ignore"):
            return np.float32(np.float64(self.multiplier) * np.float64(self.base) ** exponent)

    def longest(self, text: Array) -> dict[int, int]:
        """Return, for each token that would continue a repetition, how many of the text's last ids it would
        lengthen.
        """
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
        """Return how many ids follow the last breaker; all of them if there is none."""
        ids = text.tolist()
        heads = {breaker[0] for breaker in self.breakers}
        for back, token in enumerate(reversed(ids)):
            if token in heads:
                start = len(ids) - 1 - back
                lengths = [len(one) for one in self.breakers if tuple(ids[start : start + len(one)]) == one]
                if lengths:
                    return back - max(lengths) + 1
        return len(ids)


def make(
    place: Place,
    dry_multiplier: float,
    dry_base: float,
    dry_allowed_length: int,
    dry_penalty_last_n: int | None,
    dry_sequence_breakers: Sequence[Sequence[int]] | None,
) -> DRY | None:
    """Build DRY with the breakers as tuples; None if it may not look back."""
    if dry_penalty_last_n == 0:
        return None
    breakers = tuple(tuple(breaker) for breaker in dry_sequence_breakers or ())
    return DRY(dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, breakers)


METHODS = (
    Method(
        "dry_multiplier",
        options=(MULTIPLIER, BASE, ALLOWED_LENGTH, LAST_N, BREAKERS),
        make=make,
        documentation=(
            Documentation(
                "dry_multiplier",
                what="Tokens that would continue a repetition are penalised, more strongly the longer it is.",
                formula=r"z_i \leftarrow z_i - m\,b^{\,L - a}",
                source="p-e-w 2024; llama.cpp, `llama_sampler_dry_apply`",
                when="Loops of whole phrases, without punishing single words.",
                example={"dry_multiplier": 2.0},
                prompt=AGAIN,
            ),
        ),
        costs=(Cost({"dry_multiplier": 0.8, "dry_sequence_breakers": [[13], [198], [25], [1]]}),),
        vectors=(
            Vectors(
                "dry",
                lambda multiplier, base, allowed_length, last_n, breakers: DRY(
                    multiplier, base, allowed_length, last_n, tuple(map(tuple, breakers))
                ),
                (
                    [0.8, 1.75, 1, None, []],
                    [0.8, 1.75, 2, None, []],
                    [0.8, 2.0, 1, 4, []],
                    [0.8, 1.75, 1, None, [[3]]],
                    [0.8, 1.75, 0, None, [[3, 5]]],
                ),
            ),
        ),
    ),
)

"""Limits on a text's length: no end-of-text too early, and a growing preference for it later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import DECAY, WHOLE
from .suppress import forbid

Array = np.ndarray
FAR = 2**53  # ids beyond a start that no text reaches

MIN_LENGTH = Option(
    "min_length",
    WHOLE,
    interval="[0, inf)",
    off=(0,),
    help="No end-of-text before prompt and text together have this many tokens.",
)
MIN_NEW_TOKENS = Option(
    "min_new_tokens",
    WHOLE,
    interval="[0, inf)",
    off=(0,),
    group="Length",
    help="No end-of-text before this many new tokens.",
)
DECAYING = Option("exponential_decay_length_penalty", DECAY)


@dataclass(frozen=True)
class MinLength:
    """Forbids end-of-text before the text has `length` ids, including the prompt."""

    length: int
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return forbid(scores, self.eos) if len(ids[0]) < self.length else scores


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
        power = np.float64(self.factor) ** float(min(over, FAR))  # infinite where it leaves float64
        gain = np.abs(scores[:, eos]) * scores.dtype.type(power - 1)
        # A score of −inf, or the lowest number that RemoveInvalid puts in its place, is a forbidden token's.
        out[:, eos] += np.where(scores[:, eos] > np.finfo(scores.dtype).min, gain, 0)
        return out


def new_tokens(place: Place, min_new_tokens: int) -> MinLength | None:
    """Build the rule for a number of new tokens; None for 0, or if there is no end-of-text."""
    return MinLength(place.prompt_length + min_new_tokens, place.eos) if min_new_tokens and place.eos else None


def decaying(place: Place, exponential_decay_length_penalty: tuple[int, float]) -> ExponentialDecayLengthPenalty | None:
    """Build the preference that starts a number of ids after the prompt; None if there is no end-of-text."""
    start, factor = exponential_decay_length_penalty
    return ExponentialDecayLengthPenalty(start + place.prompt_length, factor, place.eos) if place.eos else None


def check(options: Any) -> None:
    """Check that the least number of tokens is no larger than the greatest."""
    if options.min_new_tokens is not None and (options.max_length is None or "max_new_tokens" in options.given):
        rule = f"min_new_tokens must be at most max_new_tokens ({options.max_new_tokens})"
        require(options.min_new_tokens <= options.max_new_tokens, rule, options.min_new_tokens)


METHODS = (
    Method(
        "min_length",
        options=(MIN_LENGTH,),
        make=lambda place, min_length: MinLength(min_length, place.eos) if min_length and place.eos else None,
        forbids=True,
        costs=(Cost({"min_length": 700}),),
        vectors=(Vectors("min_length", MinLength, ([9, [2]], [6, [2]])),),
    ),
    Method(
        "min_new_tokens",
        options=(MIN_NEW_TOKENS,),
        make=new_tokens,
        check=check,
        forbids=True,
        costs=(Cost({"min_new_tokens": 300}),),
        vectors=(
            Vectors(
                "min_new_tokens",
                lambda prompt_length, new, eos: MinLength(prompt_length + new, eos),
                ([4, 3, [2]], [4, 2, [2, 0]]),
            ),
        ),
    ),
    Method(
        "exponential_decay_length_penalty",
        options=(DECAYING,),
        make=decaying,
        documentation=(
            Documentation(
                "exponential_decay_length_penalty",
                what="End-of-text becomes likelier with every token past a start.",
                formula=r"z_{eos} \leftarrow z_{eos} + |z_{eos}|\,(f^{\,i} - 1)",
                source="transformers",
                when="For texts of about one length that aren't cut off. `min_new_tokens` and `forced_eos_token_id` "
                "set hard limits.",
                example={"exponential_decay_length_penalty": (5, 1.3)},
                picture=False,
            ),
        ),
        costs=(Cost({"exponential_decay_length_penalty": (0, 1.01)}),),
        vectors=(
            Vectors(
                "exponential_decay_length_penalty", ExponentialDecayLengthPenalty, ([4, 1.5, [0, 2]], [6, 1.5, [0, 2]])
            ),
        ),
    ),
)

"""Penalties on repeated tokens: transformers' and OpenAI's, and llama.cpp's, which look at the last n ids only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.given import excluded, given
from ..base.interface import LogitsProcessor, log_softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import FLAG, NUMBER, WHOLE

Array = np.ndarray

REPETITION = Option(
    "repetition_penalty",
    NUMBER,
    interval="(0, inf]",
    off=(1,),
    group="Rules",
    help="Above 1: tokens that occurred before become less likely.",
)
PRESENCE = Option(
    "presence_penalty",
    NUMBER,
    off=(0,),
    group="Rules",
    help="Subtract this from the logit of every token that was generated before.",
)
FREQUENCY = Option(
    "frequency_penalty",
    NUMBER,
    off=(0,),
    group="Rules",
    help="Subtract this from a token's logit for each time it was generated.",
)
LAST_N = Option(
    "penalty_last_n",
    WHOLE,
    interval="[-1, inf)",
    needs=("repetition_penalty", "presence_penalty", "frequency_penalty"),
    group="Rules",
    help="How many of the last tokens penalties look at; -1 means all, 0 none.",
)
IGNORED = Option(
    "prompt_ignore_length",
    WHOLE,
    interval="[1, inf)",
    off=(0,),
    needs=("repetition_penalty",),
    group="Rules",
    help="The repetition penalty ignores this many of the prompt's first tokens.",
)
NORMALIZE = Option(
    "repetition_penalty_normalize",
    FLAG,
    default=False,
    needs=("repetition_penalty",),
    group="Rules",
    help="Normalise the scores to log-probabilities before the repetition penalty.",
)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Penalises every token that occurred, in the prompt too: negative scores × penalty, others ÷ penalty.

    Keskar et al. 2019, section 4.1, with the sign handled as transformers does. Its first `prompt_ignore_length` ids
    don't count. With `normalize` the scores first become log-probabilities, and stay so: none is positive, so that the
    result doesn't change when a constant is added to all logits (Hollows 2026, arXiv 2607.09791).
    """

    penalty: float
    prompt_ignore_length: int = 0
    normalize: bool = False

    def __post_init__(self) -> None:
        REPETITION.check(self.penalty)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, penalty = prepared(scores, self.normalize), scores.dtype.type(self.penalty)
        for row, seen in zip(out, ids, strict=True):
            penalize(row, np.asarray(seen)[self.prompt_ignore_length :], penalty)
        return out


def prepared(scores: Array, normalize: bool) -> Array:
    """Return a copy of (rows, V) scores to penalise, as log-probabilities if it should `normalize` them."""
    return log_softmax(scores) if normalize else scores.copy()


def penalize(row: Array, tokens: Array, penalty: np.floating) -> None:
    """Penalise some tokens of a row of scores, (V,), in place: negative ones × penalty, others ÷ penalty."""
    score = row[tokens]
    row[tokens] = np.where(score < 0, score * penalty, score / penalty)


@dataclass(frozen=True)
class OccurrencePenalty:
    """OpenAI's penalties: presence once, frequency for each time a token was generated; the prompt isn't counted."""

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
class RecentPenalty:
    """Penalties on the tokens among the last `last_n` ids, the prompt's too. ``llama_sampler_penalties_apply``.

    First the repetition penalty (Keskar et al. 2019): positive scores ÷ repeat, others × repeat. Then `presence` is
    subtracted once, `frequency` for each occurrence. mlx-lm's three processors do the same. A `last_n` of −1 means all.
    """

    last_n: int
    repeat: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    def __post_init__(self) -> None:
        require(self.last_n != 0, "penalty_last_n must be at least 1, or -1", self.last_n)
        LAST_N.check(self.last_n)
        REPETITION.check(self.repeat)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, repeat = scores.copy(), scores.dtype.type(self.repeat)
        first = 0 if self.last_n < 0 else -self.last_n
        for row, seen in zip(out, ids, strict=True):
            tokens, counts = np.unique(np.asarray(seen)[first:], return_counts=True)
            score = np.where(row[tokens] <= 0, row[tokens] * repeat, row[tokens] / repeat)
            row[tokens] = score - (counts * self.frequency + self.presence).astype(row.dtype)
        return out


def repetition(
    place: Place,
    repetition_penalty: float,
    penalty_last_n: int | None,
    prompt_ignore_length: int | None,
    repetition_penalty_normalize: bool,
) -> LogitsProcessor | None:
    """Build the repetition penalty; None at 1, or if it looks at no token."""
    if repetition_penalty == 1 or penalty_last_n == 0:
        return None
    if penalty_last_n is None:
        return RepetitionPenalty(repetition_penalty, prompt_ignore_length or 0, repetition_penalty_normalize)
    return RecentPenalty(penalty_last_n, repeat=repetition_penalty)


def presence(place: Place, presence_penalty: float, penalty_last_n: int | None) -> LogitsProcessor | None:
    """Build the presence penalty; None at 0, or if it looks at no token."""
    if presence_penalty == 0 or penalty_last_n == 0:
        return None
    if penalty_last_n is None:
        return OccurrencePenalty(place.prompt_length, presence=presence_penalty)
    return RecentPenalty(penalty_last_n, presence=presence_penalty)


def frequency(place: Place, frequency_penalty: float, penalty_last_n: int | None) -> LogitsProcessor | None:
    """Build the frequency penalty; None at 0, or if it looks at no token."""
    if frequency_penalty == 0 or penalty_last_n == 0:
        return None
    if penalty_last_n is None:
        return OccurrencePenalty(place.prompt_length, frequency=frequency_penalty)
    return RecentPenalty(penalty_last_n, frequency=frequency_penalty)


def check(options: Any) -> None:
    """Check that transformers' own options don't meet llama.cpp's: no engine has both."""
    for name in ("prompt_ignore_length", "repetition_penalty_normalize"):
        if given(options, name):
            excluded(name, options, "penalty_last_n")


AGAIN = "The cat sat by the fire and the dog sat by the"  # a prompt that invites repetition

METHODS = (
    Method(
        "repetition_penalty",
        options=(REPETITION, LAST_N, IGNORED, NORMALIZE),
        make=repetition,
        check=check,
        documentation=(
            Documentation(
                "repetition_penalty",
                what=(
                    "Tokens that occurred become less likely: negative scores are multiplied by the penalty, others "
                    "are divided by it."
                ),
                formula=r"z_i \leftarrow z_i / \theta \text{ or } z_i\,\theta",
                source="Keskar et al. 2019",
                when="Loops in greedy text; 1.1 to 1.3. It also hits words that must come again.",
                example={"repetition_penalty": 1.3},
                prompt=AGAIN,
            ),
            Documentation(
                "repetition_penalty_normalize",
                what=(
                    "The repetition penalty multiplies log-probabilities instead of logits. A constant that is added "
                    "to all logits changes no probability; it changes the penalty on logits, but not this one. Later "
                    "methods receive log-probabilities, as they always do in beam search."
                ),
                formula=r"z \leftarrow \log \operatorname{softmax}(z), \quad z_i \leftarrow z_i\,\theta",
                source="Hollows 2026 (arXiv 2607.09791); transformers' pull request 48642",
                when=(
                    "To compare models, whose logits lie around different values, or where a text must repeat what "
                    "the model is sure of, as in JSON: likely tokens lose least. A value acts mostly less than on "
                    "logits; tune it anew."
                ),
                example={"repetition_penalty": 1.5, "repetition_penalty_normalize": True},
                prompt="The king and the queen went to the castle of the",
            ),
        ),
        costs=(
            Cost({"repetition_penalty": 1.2}),
            Cost(
                {"repetition_penalty": 1.2, "repetition_penalty_normalize": True}, title="repetition_penalty_normalize"
            ),
        ),
        vectors=(
            Vectors("repetition_penalty", RepetitionPenalty, ([1.5], [0.8], [1.5, 2], [1.5, 0, True], [0.8, 2, True])),
            Vectors("recent_penalty", RecentPenalty, ([3, 1.5, 0.0, 0.0], [4, 1.0, 0.5, 0.25], [99, 0.8, 0, 1])),
        ),
    ),
    Method(
        "presence_penalty",
        options=(PRESENCE,),
        make=presence,
        reads=("penalty_last_n",),
        documentation=(
            Documentation(
                "presence_penalty",
                what="The penalty is subtracted once from every token that was generated before. The prompt doesn't "
                "count; llama.cpp counts the last n ids.",
                formula=r"z_i \leftarrow z_i - a\,[c_i > 0]",
                source="OpenAI's API; llama.cpp",
                when="To talk about new things.",
                example={"presence_penalty": 2.0, "penalty_last_n": 64},
                prompt=AGAIN,
            ),
        ),
        costs=(Cost({"presence_penalty": 0.5}),),
        vectors=(Vectors("occurrence_penalty", OccurrencePenalty, ([2, 0.5, 0.25],)),),
    ),
    Method(
        "frequency_penalty",
        options=(FREQUENCY,),
        make=frequency,
        reads=("penalty_last_n",),
        documentation=(
            Documentation(
                "frequency_penalty",
                what="The penalty is subtracted from a token once for each time that it was generated.",
                formula=r"z_i \leftarrow z_i - b\,c_i",
                source="OpenAI's API; llama.cpp",
                when="Against words that come again and again.",
                example={"frequency_penalty": 1.5, "penalty_last_n": 64},
                prompt=AGAIN,
            ),
        ),
        costs=(Cost({"frequency_penalty": 0.5}),),
    ),
)

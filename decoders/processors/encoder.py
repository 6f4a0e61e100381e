"""transformers' rules about an encoder's input; for a model without an encoder this is the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import FLAG, NUMBER, WHOLE
from .no_repeat_ngram import forbid_repeats
from .penalties import AGAIN, penalize, prepared

Array = np.ndarray

PENALTY = Option(
    "encoder_repetition_penalty",
    NUMBER,
    interval="(0, inf)",
    off=(1,),
    group="Rules",
    help="Above 1: tokens of the prompt become likelier.",
)
NORMALIZE = Option(
    "encoder_repetition_penalty_normalize",
    FLAG,
    default=False,
    needs=("encoder_repetition_penalty",),
    group="Rules",
    help="Normalise the scores to log-probabilities before the encoder repetition penalty.",
)
SIZE = Option(
    "encoder_no_repeat_ngram_size",
    WHOLE,
    interval="[1, inf)",
    off=(0,),
    group="Rules",
    help="Never repeat an n-gram of the prompt of this many tokens.",
)


@dataclass(frozen=True)
class EncoderRepetitionPenalty:
    """Favours every token of the prompt: negative scores ÷ penalty, others × penalty.

    ``EncoderRepetitionPenaltyLogitsProcessor``, the inverse of a repetition penalty (Keskar et al. 2019). With
    `normalize` the scores first become log-probabilities, as in `RepetitionPenalty`.
    """

    prompt_length: int
    penalty: float
    normalize: bool = False

    def __post_init__(self) -> None:
        PENALTY.check(self.penalty)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, penalty = prepared(scores, self.normalize), scores.dtype.type(1 / self.penalty)
        for row, seen in zip(out, ids, strict=True):
            penalize(row, np.asarray(seen)[: self.prompt_length], penalty)
        return out


@dataclass(frozen=True)
class EncoderNoRepeatNgram:
    """Forbids every n-gram of the prompt. ``EncoderNoRepeatNGramLogitsProcessor``.

    Repetitions within the new text are allowed.
    """

    prompt_length: int
    size: int

    def __post_init__(self) -> None:
        SIZE.check(self.size)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out = scores.copy()
        for row, seen in zip(out, ids, strict=True):
            forbid_repeats(row, np.asarray(seen), np.asarray(seen)[: self.prompt_length], self.size)
        return out


METHODS = (
    Method(
        "encoder_repetition_penalty",
        options=(PENALTY, NORMALIZE),
        make=lambda place, encoder_repetition_penalty, encoder_repetition_penalty_normalize: EncoderRepetitionPenalty(
            place.prompt_length, encoder_repetition_penalty, encoder_repetition_penalty_normalize
        ),
        documentation=(
            Documentation(
                "encoder_repetition_penalty",
                what=(
                    "Tokens of the prompt become likelier: negative scores are divided by the penalty, others are "
                    "multiplied by it."
                ),
                formula=r"z_i \leftarrow z_i\,\theta \text{ or } z_i / \theta",
                source="transformers, `EncoderRepetitionPenaltyLogitsProcessor`",
                when="To hold a text to its prompt's words; 1.1 to 1.3.",
                example={"encoder_repetition_penalty": 1.1},
                prompt=AGAIN,
            ),
        ),
        costs=(
            Cost({"encoder_repetition_penalty": 1.2}),
            Cost(
                {"encoder_repetition_penalty": 1.2, "encoder_repetition_penalty_normalize": True},
                title="encoder_repetition_penalty_normalize",
            ),
        ),
        vectors=(
            Vectors("encoder_repetition_penalty", EncoderRepetitionPenalty, ([2, 1.5], [3, 0.8], [2, 1.5, True])),
        ),
    ),
    Method(
        "encoder_no_repeat_ngram_size",
        options=(SIZE,),
        make=lambda place, encoder_no_repeat_ngram_size: EncoderNoRepeatNgram(
            place.prompt_length, encoder_no_repeat_ngram_size
        ),
        forbids=True,
        documentation=(
            Documentation(
                "encoder_no_repeat_ngram_size",
                what="No n-gram of the prompt is repeated; the new text may repeat its own.",
                formula=r"(x_{t-n+1}, \dots, x_t) \notin \text{prompt}",
                source="transformers, `EncoderNoRepeatNGramLogitsProcessor`",
                when="Answers that must not parrot the question.",
                example={"encoder_no_repeat_ngram_size": 2},
                prompt=AGAIN,
            ),
        ),
        costs=(Cost({"encoder_no_repeat_ngram_size": 3}),),
        vectors=(Vectors("encoder_no_repeat_ngram_size", EncoderNoRepeatNgram, ([3, 1], [3, 2], [9, 3])),),
    ),
)

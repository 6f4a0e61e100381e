"""Biases on tokens and on sequences of them; a bias of −inf forbids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import LOGIT_BIAS, PHRASES, SEQUENCE_BIAS, pairs

Array = np.ndarray

SEQUENCES = Option("sequence_bias", SEQUENCE_BIAS)
TOKENS = Option("logit_bias", LOGIT_BIAS, help="Add a bias to the logits of single tokens; −inf forbids one.")
BAD_WORDS = Option("bad_words_ids", PHRASES, may_be_empty=False)


@dataclass(frozen=True)
class SequenceBias:
    """Adds a bias to the token that would complete a sequence; single tokens always get theirs."""

    bias: Mapping[tuple[int, ...], float]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        total = np.zeros_like(scores)
        for sequence, value in self.bias.items():
            prefix = np.array(sequence[:-1], np.int64)
            for row, seen in zip(total, ids, strict=True):
                start = len(seen) - len(prefix)
                if start >= 0 and np.array_equal(np.asarray(seen)[start:], prefix):
                    row[sequence[-1]] += value
        return scores + total


def bad_words(sequences: Sequence[Sequence[int]], eos: Sequence[int]) -> SequenceBias:
    """Build the rule against sequences: each is stopped at its last token. An end-of-text alone is ignored."""
    kept = [tuple(sequence) for sequence in sequences if not (len(sequence) == 1 and sequence[0] in eos)]
    return SequenceBias(dict.fromkeys(kept, FORBIDDEN))


def of_sequences(place: Place, sequence_bias: Any) -> SequenceBias:
    """Build the bias of each sequence."""
    return SequenceBias({tuple(sequence): value for sequence, value in pairs(sequence_bias)})


def of_tokens(place: Place, logit_bias: Mapping[int, float]) -> SequenceBias | None:
    """Build the bias of each token; None if there is none."""
    return SequenceBias({(token,): value for token, value in logit_bias.items()}) if logit_bias else None


def below_infinity(name: str, biases: Any) -> None:
    """Raise ``ValueError`` for a bias of +inf, which would leave no order among the biased tokens."""
    for _, bias in () if biases is None else pairs(biases):
        require(bias < float("inf"), f"{name} must hold numbers below infinity", bias)


WORDS = [[i, i + 1] for i in range(100, 150)]  # what the costs are measured with

METHODS = (
    Method(
        "sequence_bias",
        options=(SEQUENCES,),
        make=of_sequences,
        check=lambda options: below_infinity("sequence_bias", options.sequence_bias),
        forbids=True,
        documentation=(
            Documentation(
                "sequence_bias",
                what=(
                    "A bias is added to the token that would complete a sequence. `logit_bias` does so for single ids."
                ),
                formula=r"z_i \leftarrow z_i + b",
                source="transformers",
                when="To nudge a word up or down.",
                example={"sequence_bias": [([" beautiful"], 2.0), ([" daughter"], -2.0)]},
            ),
        ),
        costs=(Cost({"sequence_bias": {tuple(word): -2.0 for word in WORDS}}),),
        vectors=(
            Vectors(
                "sequence_bias",
                lambda biases: SequenceBias({tuple(sequence): bias for sequence, bias in biases}),
                ([[[[0], 1.5], [[5, 1, 3], -2.0]]],),
            ),
        ),
    ),
    Method(
        "logit_bias",
        options=(TOKENS,),
        make=of_tokens,
        check=lambda options: below_infinity("logit_bias", options.logit_bias),
        forbids=True,
        costs=(Cost({"logit_bias": dict.fromkeys(range(100, 150), -2.0)}),),
    ),
    Method(
        "bad_words_ids",
        options=(BAD_WORDS,),
        make=lambda place, bad_words_ids: bad_words(bad_words_ids, place.eos),
        forbids=True,
        documentation=(
            Documentation(
                "bad_words_ids",
                what="These sequences are never generated.",
                formula=r"z_i \leftarrow -\infty",
                source="transformers",
                when="For words that must not be said. `suppress_tokens` and `begin_suppress_tokens` forbid single "
                "ids, everywhere or at the start.",
                example={"bad_words_ids": [[" daughter"], [" son"]]},
            ),
        ),
        costs=(Cost({"bad_words_ids": WORDS}),),
        vectors=(Vectors("bad_words_ids", bad_words, ([[[0], [1, 4], [2]], [2]],)),),
    ),
)

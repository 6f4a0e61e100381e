"""vLLM's order and habits (``vllm/v1/sample/sampler.py``, ``ops/bad_words.py``, ``ops/topk_topp_sampler.py``, where
they are in torch; ``vllm/sampling_params.py``).

Its top-k and top-p are transformers': ties with the k-th stay, and probabilities are summed upwards. It has no defaults
of its own, but a server of it takes those of a model's generation_config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.interface import FORBIDDEN, LogitsProcessor
from ..base.method import Cost, Place, Profile, Vectors
from . import temperature as temperatures
from .bias import WORDS, SequenceBias

Array = np.ndarray

LOWEST = 0.01  # a temperature between 0 and this becomes this


@dataclass(frozen=True)
class BadWords:
    """No sequence is completed that began in the new text; what began in the prompt may be. ``apply_bad_words``.

    Unlike in transformers, an end-of-text alone is no exception.
    """

    prompt_length: int
    words: Sequence[Sequence[int]]

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        bias = SequenceBias(dict.fromkeys(map(tuple, self.words), FORBIDDEN))
        return bias([np.asarray(seen)[self.prompt_length :] for seen in ids], scores)


def bad_words(place: Place, bad_words_ids: Sequence[Sequence[int]]) -> BadWords:
    """Its bad words."""
    return BadWords(place.prompt_length, bad_words_ids)


def temperature(place: Place, temperature: float | None, **others: Any) -> LogitsProcessor | None:
    """Its temperature; 0 takes the best token."""
    raised = max(temperature, LOWEST) if temperature else temperature
    return temperatures.make(place, raised, **others)


PROFILE = Profile(
    "vllm",
    order=(
        "constraint",
        "bad_words_ids",
        "min_new_tokens",
        "logit_bias",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "temperature",
        "min_p",
        "top_k",
        "top_p",
    ),
    makes={"bad_words_ids": bad_words, "temperature": temperature},
    lacks=("dynatemp_range", "penalty_last_n", "prompt_ignore_length", "repetition_penalty_normalize"),
    ranges={"temperature": "[0, 2]"},
    off={"top_k": "[-1, 0]"},
    costs=(
        Cost({"bad_words_ids": WORDS, "profile": "vllm"}, title="bad_words_ids (vllm)"),
        Cost({"temperature": 0.8, "profile": "vllm"}, title="temperature (vllm)"),
    ),
    vectors=(Vectors("vllm bad_words_ids", BadWords, ([0, [[3], [1, 2]]], [2, [[3], [1, 2]]])),),
)

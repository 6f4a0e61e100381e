"""Classifier-free guidance: away from what the model would say to another prompt. Sanchez et al. 2023."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import require
from .interface import Stepper, log_softmax

if TYPE_CHECKING:
    from .options import Options

Array = np.ndarray


class Guidance:
    """scale · (log p − log p₀) + log p₀, p₀ being what follows the negative prompt and the same new ids.

    As transformers' ``UnbatchedClassifierFreeGuidanceLogitsProcessor``; without a negative prompt, the prompt's last id
    takes its place. The stepper is this processor's own. It follows the texts that it is shown, each of which continues
    one of the step before by one id; so, unlike in transformers, beams keep their own past.
    """

    def __init__(
        self, scale: float, stepper: Stepper, prompt_length: int, negative_prompt_ids: Sequence[int] | None = None
    ) -> None:
        require(math.isfinite(scale), "guidance_scale must be finite", scale)
        require(
            negative_prompt_ids is None or len(negative_prompt_ids) > 0,
            "negative_prompt_ids must hold at least one id",
            negative_prompt_ids,
        )
        self.scale, self.stepper, self.prompt_length, self.negative = scale, stepper, prompt_length, negative_prompt_ids
        self.held: list[list[int]] | None = None  # the new ids behind each of the stepper's rows

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        negative = self.negative if self.negative is not None else [int(ids[0][self.prompt_length - 1])]
        guided, unguided = log_softmax(scores), log_softmax(self.follow(ids, negative))
        return (scores.dtype.type(self.scale) * (guided - unguided) + unguided).astype(scores.dtype)

    def follow(self, ids: Sequence[Array], negative: Sequence[int]) -> Array:
        """(rows, V) logits after the negative prompt and each text's new ids."""
        new = [np.asarray(text)[self.prompt_length :].tolist() for text in ids]
        if self.held is None:
            logits = np.repeat(self.stepper.feed([list(negative)]), len(new), axis=0)
            if len(new) > 1:
                self.stepper.reorder([0] * len(new))
        else:
            for text in new:
                require(text[:-1] in self.held, "guidance must see a text grow by one id at a time", text)
            parents = [self.held.index(text[:-1]) for text in new]
            if parents != list(range(len(self.held))):
                self.stepper.reorder(parents)
            logits = self.stepper.feed([text[-1:] for text in new])
        self.held = new
        return logits

    def __repr__(self) -> str:
        return f"Guidance(scale={self.scale})"


def longest_negative_prompt(options: Options) -> int:
    """How many ids of the context the longest negative prompt takes."""
    several: Any = options.negative_prompt_ids
    if several is None:
        return 0
    return len(several) if isinstance(several[0], (int, np.integer)) else max(len(one) for one in several)


def check_prompts(options: Options, prompts: int) -> None:
    """``ValueError`` unless there is one negative prompt for all, or one for each of so many prompts."""
    several: Any = options.negative_prompt_ids
    if several is not None and not isinstance(several[0], (int, np.integer)):
        rule = f"negative_prompt_ids must be one for all or one for each prompt ({prompts})"
        require(len(several) == prompts, rule, len(several))

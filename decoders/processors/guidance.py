"""Classifier-free guidance: moves scores away from what the model predicts after another prompt. Sanchez et al.
2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.interface import Stepper, log_softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import CALLABLE, NUMBER, PROMPTS

Array = np.ndarray

SCALE = Option(
    "guidance_scale",
    NUMBER,
    interval="(-inf, inf)",
    off=(1,),
    group="Rules",
    help="Classifier-free guidance: above 1 steers away from the negative prompt.",
)
NEGATIVE = Option(
    "negative_prompt_ids",
    PROMPTS,
    needs=("guidance_scale",),
    may_be_empty=False,
    group="Rules",
    help="The prompt that guidance steers away from.",
    flag="--negative-prompt",
    metavar="TEXT",
    in_text="str | Sequence[int] | Sequence[str | Sequence[int]]",
)
UNCONDITIONAL = Option(
    "unconditional", CALLABLE, help="A function that returns the second stepper, which guidance_scale needs."
)


class Guidance:
    """scale · (log p − log p₀) + log p₀, p₀ being what follows the negative prompt and the same new ids.

    As transformers' ``UnbatchedClassifierFreeGuidanceLogitsProcessor``; without a negative prompt, the prompt's last id
    takes its place. The stepper is this processor's own. It follows the texts that it is shown, each of which continues
    one of the step before by one id; so, unlike in transformers, beams keep their own past.
    """

    def __init__(
        self, scale: float, stepper: Stepper, prompt_length: int, negative_prompt_ids: Sequence[int] | None = None
    ) -> None:
        SCALE.check(scale)
        require(
            negative_prompt_ids is None or len(negative_prompt_ids) > 0,
            "negative_prompt_ids must hold at least one id",
            negative_prompt_ids,
        )
        self.scale, self.stepper, self.prompt_length, self.negative = scale, stepper, prompt_length, negative_prompt_ids
        self.held: list[list[int]] | None = None  # the new ids after each of the stepper's rows

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        negative = self.negative if self.negative is not None else [int(ids[0][self.prompt_length - 1])]
        guided, unguided = log_softmax(scores), log_softmax(self.follow(ids, negative))
        return (scores.dtype.type(self.scale) * (guided - unguided) + unguided).astype(scores.dtype)

    def follow(self, ids: Sequence[Array], negative: Sequence[int]) -> Array:
        """Return (rows, V) logits after the negative prompt and each text's new ids."""
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


def one_for_all(negative_prompt_ids: Any) -> bool:
    """Tell whether these are the ids of one negative prompt, and not of several."""
    return isinstance(negative_prompt_ids[0], (int, np.integer))


def negative_prompt(negative_prompt_ids: Any, number: int) -> Sequence[int] | None:
    """Return a prompt's negative prompt; None if that is the prompt's own last id."""
    if negative_prompt_ids is None or one_for_all(negative_prompt_ids):
        return negative_prompt_ids
    return negative_prompt_ids[number]


def longest_negative_prompt(negative_prompt_ids: Any) -> int:
    """Return how many ids of the context the longest negative prompt takes."""
    if negative_prompt_ids is None:
        return 0
    return len(negative_prompt_ids) if one_for_all(negative_prompt_ids) else max(map(len, negative_prompt_ids))


def check_prompts(negative_prompt_ids: Any, prompts: int) -> None:
    """Raise ``ValueError`` unless there is one negative prompt for all, or one for each prompt."""
    if negative_prompt_ids is not None and not one_for_all(negative_prompt_ids):
        rule = f"negative_prompt_ids must be one for all or one for each prompt ({prompts})"
        require(len(negative_prompt_ids) == prompts, rule, len(negative_prompt_ids))


def make(
    place: Place, guidance_scale: float, negative_prompt_ids: Any, unconditional: Callable[[], Stepper] | None
) -> Guidance | None:
    """Build guidance with its own stepper; None at a scale of 1."""
    if guidance_scale == 1 or unconditional is None:
        return None
    negative = negative_prompt(negative_prompt_ids, place.prompt)
    return Guidance(guidance_scale, unconditional(), place.prompt_length, negative)


def check(options: Any) -> None:
    """Check that a scale with an effect has a second stepper."""
    if options.guidance_scale not in (None, 1) and options.unconditional is None:
        raise ValueError("guidance_scale needs a second stepper: give unconditional, which makes one")


class _Given:
    """A stepper that answers the same scores whatever it is fed: what follows a negative prompt, given as data."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = np.array([scores], np.float32)

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        return self.scores

    def reorder(self, rows: Sequence[int]) -> None:
        pass


_UNGUIDED = [0.5, 0.0, 0.5, 1.0, -1.0, 0.0, 0.25, -0.5]

METHODS = (
    Method(
        "guidance_scale",
        options=(SCALE, NEGATIVE, UNCONDITIONAL),
        make=make,
        check=check,
        has_past=True,
        documentation=(
            Documentation(
                "guidance_scale",
                what="Scores are moved away from those that another prompt would have.",
                formula=r"\log p \leftarrow \log p_0 + s\,(\log p - \log p_0)",
                source="Sanchez et al. 2023",
                when="To follow a prompt more closely, or to avoid the negative one.",
                example={"guidance_scale": 2.0, "negative_prompt_ids": "She was a"},
            ),
        ),
        costs=(Cost({"guidance_scale": 1.5}),),
        vectors=(
            Vectors(
                "guidance_scale",
                lambda scale, unguided: Guidance(scale, _Given(unguided), 1, [0]),
                ([1.5, _UNGUIDED], [0.5, _UNGUIDED]),
            ),
        ),
    ),
)

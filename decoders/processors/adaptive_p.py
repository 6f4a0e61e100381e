"""Adaptive-p: favours tokens near a target probability, which moves so that the drawn tokens reach it on average.

It follows llama.cpp (``llama_sampler_adaptive_p_apply``, its pull request 17927; the idea is MrJackSpade's). As with
Mirostat, llama.cpp draws inside the sampler, while here the loop draws and the next step sees from the text what was
drawn: the average is a function of the text alone, and rows share one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.given import given
from ..base.interface import softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.value_types import NUMBER
from ..base.watching import possible
from .mirostat import _Steps

Array = np.ndarray

TARGET = Option(
    "adaptive_target",
    NUMBER,
    interval="[0, 1]",
    group="Samplers of other engines",
    help="Prefer tokens whose probability is near this one (adaptive-p).",
)
DECAY = Option(
    "adaptive_decay",
    NUMBER,
    otherwise=0.9,
    interval="[0, 0.99]",
    needs=("adaptive_target",),
    group="Samplers of other engines",
    help="How long the average of drawn probabilities looks back: about 1 / (1 - decay) tokens.",
)
ONE, TWO = np.float32(1), np.float32(2)  # with Python's own numbers, NumPy 1 would compute in float64
WIDTH, PEAK, SHARPNESS = np.float32(0.3), np.float32(5), np.float32(10)
# What was drawn at each step: the weighted sum of its probabilities, the sum of the weights.
Average = tuple[np.float32, np.float32]


class AdaptiveP:
    """Scores by the distance d = \\|p − t\\| / 0.3 from a target alone: 5 − 10 d² / (1 + d).

    p are the probabilities that come in, t = 2 · target − the average p of the tokens drawn so far, within 0 and 1; the
    newest count most, each earlier one `decay` times as much. What is impossible stays so. A text must be seen to grow
    by one id at a time: ``ValueError`` otherwise.
    """

    def __init__(self, prompt_length: int, target: float, decay: float = DECAY.otherwise) -> None:
        TARGET.check(target)
        DECAY.check(decay)
        self.prompt_length, self.target, self.decay = prompt_length, np.float32(target), np.float32(decay)
        # After each text of the newest step: its average, and the probability of every token.
        self.newest: dict[bytes, tuple[Average, Array]] = {}

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, newest, p = scores.copy(), {}, softmax(scores)
        for place, text in enumerate(ids):
            average = self.average(text)
            distance = np.abs(p[place] - self.wanted(average)) / WIDTH
            bent = PEAK - SHARPNESS * distance * distance / (1 + distance)
            np.copyto(out[place], bent, where=possible(scores[place]))
            newest[text.tobytes()] = average, p[place]
        self.newest = newest
        return out

    def wanted(self, average: Average) -> np.float32:
        """Return the probability to aim at now."""
        weighted, total = average
        return np.float32(min(max(TWO * self.target - weighted / total, 0), 1))

    def average(self, text: Array) -> Average:
        """Return the state of what was drawn so far; it starts as if all draws had hit the target."""
        if len(text) == self.prompt_length:
            return self.target / (ONE - self.decay), ONE / (ONE - self.decay)
        rule = "adaptive_target must see a text grow by one id at a time"
        require(text[:-1].tobytes() in self.newest, rule, text.tolist())
        (weighted, total), p = self.newest[text[:-1].tobytes()]
        return p[text[-1]] + self.decay * weighted, ONE + self.decay * total

    def __repr__(self) -> str:
        return f"AdaptiveP(target={float(self.target):.6g}, decay={float(self.decay):.6g})"


def make(place: Place, adaptive_target: float, adaptive_decay: float) -> AdaptiveP:
    """Build a new average for one prompt."""
    return AdaptiveP(place.prompt_length, adaptive_target, adaptive_decay)


def check(options: Any) -> None:
    """Check that an order names it last: it overwrites all earlier scores, so it must be the last sampler."""
    order = options.order
    rule = "order must name adaptive_target last of all samplers"
    require(not given(options, "order") or "adaptive_target" not in order[:-1], rule, order)


_EARLIER = [[0.5, 0.0, 0.5, 1.0, -1.0, 0.0, 0.25, -0.5]] * 2

METHODS = (
    Method(
        "adaptive_target",
        options=(TARGET, DECAY),
        make=make,
        only="sampling",
        excludes=("num_beams", "best_of", "dola_layers"),
        check=check,
        has_past=True,
        last=True,
        documentation=(
            Documentation(
                "adaptive_target",
                what=(
                    "Tokens near a target probability are preferred. The target moves against the average of what "
                    "was drawn so far."
                ),
                formula=r"z_i \leftarrow 5 - \frac{10\,d_i^2}{1 + d_i},\quad d_i = \frac{\lvert p_i - t\rvert}{0.3},"
                r"\quad t = 2\tau - \bar p",
                source="MrJackSpade; llama.cpp, `llama_sampler_adaptive_p_apply`",
                when="Stories that are neither flat nor wild; with min_p before it and nothing else, since it raises "
                "what is unlikely.",
                example={"adaptive_target": 0.2, "min_p": 0.05},
                random=True,
            ),
        ),
        costs=(Cost({"adaptive_target": 0.3}),),
        vectors=(
            Vectors(
                "adaptive_p",
                lambda target, decay, earlier: _Steps(AdaptiveP, earlier, target, decay),
                ([0.2, 0.9, []], [0.5, 0.5, _EARLIER]),
            ),
        ),
    ),
)

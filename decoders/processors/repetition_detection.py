"""Repetition detection: a text that repeats one pattern over and over is ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import require
from ..base.given import given
from ..base.method import Documentation, Method, Option
from ..base.value_types import WHOLE

LONGEST = Option(
    "max_pattern_size",
    WHOLE,
    interval="[1, inf)",
    off=(0,),
    group="Length",
    help="End a text that keeps repeating a pattern of up to this many tokens.",
)
SHORTEST = Option(
    "min_pattern_size",
    WHOLE,
    otherwise=1,
    interval="[1, inf)",
    off=(0,),
    needs=("max_pattern_size",),
    group="Length",
    help="Patterns of fewer tokens don't count.",
)
COUNT = Option(
    "min_count",
    WHOLE,
    otherwise=2,
    interval="[2, inf)",
    needs=("max_pattern_size",),
    group="Length",
    help="How many times in a row the pattern must occur.",
)


@dataclass(frozen=True)
class RepetitionDetection:
    """Detects whether the new ids end with one pattern `min_count` times in a row, of `shortest` to `longest` ids.

    vLLM's ``check_sequence_repetition`` with its ``RepetitionDetectionParams``, whose ``min_count`` has no default; a
    text that ends so has the reason "stop". The prompt doesn't count.
    """

    longest: int
    shortest: int = SHORTEST.otherwise
    min_count: int = COUNT.otherwise

    def __post_init__(self) -> None:
        LONGEST.check(self.longest)
        SHORTEST.check(self.shortest)
        COUNT.check(self.min_count)

    def __call__(self, prompt: Sequence[int], new: Sequence[int]) -> bool:
        end = len(new)
        for size in range(self.shortest, min(self.longest, end // self.min_count) + 1):
            # One pattern over and over is a tail that equals itself, one pattern on.
            tail = new[end - size * self.min_count :]
            if list(tail[size:]) == list(tail[:-size]):
                return True
        return False


def stop(max_pattern_size: int, min_pattern_size: int, min_count: int) -> Callable[..., bool]:
    """Build the condition that ends a repetitive text."""
    return RepetitionDetection(max_pattern_size, min_pattern_size, min_count)


def check(options: Any) -> None:
    """Check that the shortest pattern is no longer than the longest."""
    if given(options, "min_pattern_size"):
        rule = f"min_pattern_size must be at most max_pattern_size ({options.max_pattern_size})"
        require(options.min_pattern_size <= options.max_pattern_size, rule, options.min_pattern_size)


METHODS = (
    Method(
        "repetition detection",
        options=(LONGEST, SHORTEST, COUNT),
        stop=stop,
        check=check,
        documentation=(
            Documentation(
                "repetition detection",
                what="A text ends once it has repeated a pattern a given number of times in a row.",
                formula=r"(x_{t-n+1}, \dots, x_t) = (x_{t-2n+1}, \dots, x_{t-n}) = \dots",
                source="vLLM, `RepetitionDetectionParams`",
                when="For many texts at once, some of which may loop until they reach the maximum length.",
                example={"max_pattern_size": 6, "min_count": 3},
                prompt="one two one two one two one",
            ),
        ),
        trials={"repetition detection": {"max_pattern_size": 4}},
    ),
)

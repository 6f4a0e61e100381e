"""Self-speculation: candidates are what the model's own first layers say, under its last norm and its head.

Elhoushi et al. 2024, "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding"; transformers'
``EarlyExitCandidateGenerator``, though its GPT-2 runs all of its layers whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..base.errors import require
from ..base.interface import RewindableStepper, Token
from ..base.method import Method, Option
from ..base.task import Task
from ..base.value_types import CALLABLE, WHOLE
from .assisted import ELSEWHERE, GROUP, draft_model


def early_exit(
    task: Task,
    assistant_early_exit: int,
    first_layers: Callable[[int], RewindableStepper],
    num_assistant_tokens: int,
    num_assistant_tokens_schedule: str,
    assistant_confidence_threshold: float,
) -> Iterator[Token]:
    """Each new id as it is chosen, candidates being what the first ``assistant_early_exit`` layers say.

    ``first_layers`` makes a stepper of this number of layers. As with a draft model, greedy text is the same as without
    assistance, and sampling has the same distribution.
    """
    return draft_model(
        task,
        lambda: first_layers(assistant_early_exit),
        num_assistant_tokens,
        num_assistant_tokens_schedule,
        assistant_confidence_threshold,
    )


def check(options: Any) -> None:
    """There is what makes a stepper of the first layers."""
    rule = "assistant_early_exit needs first_layers, which makes a stepper of the model's first layers"
    require(options.first_layers is not None, rule, None)


METHODS = (
    Method(
        "early exit",
        options=(
            Option(
                "assistant_early_exit",
                WHOLE,
                interval="[1, inf)",
                group=GROUP,
                metavar="LAYERS",
                help="Draft with the model's own first layers.",
            ),
            Option("first_layers", CALLABLE, needs=("assistant_early_exit",)),
        ),
        run=early_exit,
        streams=True,
        with_profiles=True,
        reads=("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        excludes=(*ELSEWHERE, "prompt_lookup_num_tokens", "assistant_model", "uniforms"),
        check=check,
        trials={"early exit": {"assistant_early_exit": 1, "first_layers": None}},  # put here by whoever tries it
    ),
)

"""Best of n: draws n texts and keeps those that the model finds likeliest per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..base.errors import require
from ..base.interface import Completion
from ..base.method import Documentation, Method, Option
from ..base.task import Task
from ..base.value_types import WHOLE
from .collected import collected
from .token_by_token import MOST_TEXTS


def best_of(task: Task, best_of: int) -> list[Completion]:
    """The ``task.copies`` best of ``best_of`` samples of each prompt, best first, side by side.

    ``score`` is the mean log-probability per token, by the model's own distribution before any processor: OpenAI's
    rule for its ``best_of``. The task's trace receives every sample, each prompt's best first.
    """
    n = best_of
    drawn = collected(replace(task, copies=n, trace=None))
    kept = []
    for number in range(len(task.prompts)):
        scored = best_first(drawn[number * n : number * n + n])
        kept += scored[: task.copies]
        if task.trace is not None:
            task.trace.extend(scored)
    return kept


def best_first(drawn: Sequence[Completion]) -> list[Completion]:
    """Return the samples of one prompt with their scores, the best first, ties in order."""
    scored = [replace(one, score=mean_logprob(one)) for one in drawn]
    return sorted(scored, key=lambda one: -(one.score or 0.0))


def mean_logprob(completion: Completion) -> float:
    """Return the mean of a text's log-probabilities (nats per token)."""
    return sum(completion.logprobs) / len(completion.logprobs)


def check(options: Any) -> None:
    """Check that it draws, and draws at least as many texts as it returns."""
    require(options.do_sample, "best_of needs do_sample", options.do_sample)
    rule = f"best_of must be at least num_return_sequences ({options.num_return_sequences})"
    require(options.best_of >= options.num_return_sequences, rule, options.best_of)


METHODS = (
    Method(
        "best of n",
        options=(
            Option(
                "best_of",
                WHOLE,
                interval=f"[1, {MOST_TEXTS}]",
                group="Best of many",
                help="With --do-sample: draw this many samples and return the one that is likeliest per token.",
            ),
        ),
        run=best_of,
        with_profiles=True,
        excludes=("num_beams", "exhaustive"),
        check=check,
        documentation=(
            Documentation(
                "best of n",
                what="Of n samples, the one that the model finds likeliest per token is returned.",
                formula=r"\frac1n \sum \log p",
                source="OpenAI's `best_of`",
                when="When one sample is too risky and beam search is too bland.",
                example={"top_p": 0.95, "best_of": 8},
                random=True,
            ),
        ),
        trials={"best of n": {"do_sample": True, "seed": 1, "best_of": 5}},
    ),
)

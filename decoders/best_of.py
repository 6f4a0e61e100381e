"""Best of n: draw n texts and keep those that the model itself finds likeliest, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .generate import generate
from .interface import Completion, Stepper, Stopping
from .options import Options


def best_of(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Completion] | None = None,
) -> list[Completion]:
    """The ``num_return_sequences`` best of ``best_of`` samples of each prompt, best first, side by side.

    ``score`` is the mean log-probability per token, by the model's own distribution before any processor: OpenAI's
    rule for its ``best_of``. A list given as `trace` receives every sample, each prompt's best first.
    """
    n = options.best_of or options.num_return_sequences
    sampling = replace(options, best_of=None, num_return_sequences=n)
    drawn = generate(stepper, prompts, sampling, context=context, stopping=stopping)
    kept = []
    for number in range(len(prompts)):
        scored = [replace(one, score=mean_logprob(one)) for one in drawn[number * n : number * n + n]]
        scored.sort(key=lambda one: -(one.score or 0.0))
        kept += scored[: options.num_return_sequences]
        if trace is not None:
            trace += scored
    return kept


def mean_logprob(completion: Completion) -> float:
    """The mean of a text's log-probabilities (nats per token)."""
    return sum(completion.logprobs) / len(completion.logprobs)

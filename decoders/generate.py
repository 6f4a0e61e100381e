"""The loop: feed, process, choose, tell; for greedy decoding and every kind of sampling."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import constraint, guidance, pipeline, strategies
from .interface import Completion, FinishReason, Stepper, Stopping, Token, log_softmax
from .options import Options
from .ranking import highest
from .sampling import sampler

Array = np.ndarray


def room(prompt: Sequence[int], options: Options, context: int | None) -> int:
    """How many ids may follow a prompt: as asked, but no more than the context holds (the last needn't be fed).

    ``ValueError`` when the prompt is empty or longer than the context.
    """
    if not len(prompt):
        raise ValueError("a prompt must have at least one id, got none")
    if context is None:
        return options.max_new_tokens
    if len(prompt) > context:
        raise ValueError(f"the prompt must have at most {context} tokens, the model's context, got {len(prompt)}")
    fed = max(len(prompt), guidance.longest_negative_prompt(options))
    return min(options.max_new_tokens, context - fed + 1)


def stream(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> Iterator[Token]:
    """Each new id of each row as it is chosen: greedy decoding, or sampling where the options say so.

    Rows are the prompts, each ``num_return_sequences`` times, side by side. A row ends with an end-of-text or a
    `stopping` callable ("stop"), or where its room ends ("length"); it is then no longer fed, but the random stream
    still draws for it, as torch does, until all have ended. A list given as `trace` receives a `steps.TokenStep` for
    each id.
    """
    guidance.check_prompts(options, len(prompts))
    stopping = constraint.stops(options, stopping)
    if options.penalty_alpha is not None:
        from .contrastive import contrastive_search

        yield from contrastive_search(stepper, prompts, options, context=context, stopping=stopping, trace=trace)
        return
    if options.assisted:
        from .assisted import assisted

        yield from assisted(stepper, prompts, options, context=context, stopping=stopping, trace=trace)
        return
    if options.dola_layers is None:
        dola = None
    else:
        from .dola import Dola

        stepper = dola = Dola(stepper, options.dola_layers)
    if trace is not None:
        from . import steps
    rooms = [room(prompt, options, context) for prompt in prompts]
    copies = options.num_return_sequences
    chains = [
        pipeline.build(options, number, len(prompt), len(prompt) + space)
        for number, (prompt, space) in enumerate(zip(prompts, rooms, strict=True))
    ]
    texts = [list(prompt) for prompt in prompts for _ in range(copies)]
    choose, total, until = sampler(options), len(texts), deadline(options)

    logits = stepper.feed(prompts)
    options.check_vocabulary(logits.shape[-1])
    if copies > 1:
        logits = np.repeat(logits, copies, axis=0)
        stepper.reorder([number for number in range(len(prompts)) for _ in range(copies)])
    growing = list(range(total))
    while growing:
        changes: list[list[steps.Change]] = [[] for _ in growing]
        scores = pipeline.side_by_side(
            chains,
            [(row // copies, texts[row]) for row in growing],
            logits,
            None if trace is None else steps.watching(changes),
        )
        chosen = choose(scores, growing, total)
        logprobs = log_softmax(logits if dola is None else dola.own)
        late = time.monotonic() > until

        staying = []
        for place, (row, token) in enumerate(zip(growing, chosen.tolist(), strict=True)):
            prompt = prompts[row // copies]
            texts[row].append(token)
            new = texts[row][len(prompt) :]
            reason = finish_reason(prompt, new, late or len(new) == rooms[row // copies], options, stopping)
            if reason is None:
                staying.append(place)
            if trace is not None:
                trace.append(
                    steps.token_step(
                        row,
                        len(new),
                        token,
                        float(logprobs[place, token]),
                        (logits if dola is None else dola.own)[place],
                        scores[place],
                        changes[place],
                        reason,
                    )
                )
            yield Token(
                row,
                token,
                float(logprobs[place, token]),
                reason,
                likeliest(logprobs[place], options.top_logprobs),
                scores[place].copy() if options.output_scores else None,
            )
        if staying and len(staying) < len(growing):
            stepper.reorder(staying)
        growing = [growing[place] for place in staying]
        if growing:
            logits = stepper.feed([texts[row][-1:] for row in growing])


def generate(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> list[Completion]:
    """What becomes of every prompt: ``num_return_sequences`` completions each, side by side, as in transformers.

    A list given as `trace` receives what happened: of a search see its module, otherwise a `steps.TokenStep` for each
    id, which tells what each processor removed.
    """
    guidance.check_prompts(options, len(prompts))
    search = strategies.search(options)
    if search is not None:
        extra = {} if trace is None else {"trace": trace}
        stopping = constraint.stops(options, stopping)
        return search(stepper, prompts, options, context=context, stopping=stopping, **extra)
    completions = [Completion() for _ in prompts for _ in range(options.num_return_sequences)]
    for token in stream(stepper, prompts, options, context=context, stopping=stopping, trace=trace):
        completion = completions[token.row]
        completion.ids.append(token.id)
        completion.logprobs.append(token.logprob)
        if token.finish_reason is not None:
            completion.finish_reason = token.finish_reason
        if token.top:
            completion.top.append(token.top)
        if token.scores is not None:
            completion.scores.append(token.scores)
        if token.assistance is not None:
            completion.assistance = token.assistance
    return completions


def finish_reason(
    prompt: Sequence[int], new: Sequence[int], over: bool, options: Options, stopping: Sequence[Stopping]
) -> FinishReason | None:
    """Why a text ends with its newest id: "stop" at an end-of-text or a `stopping` callable, "length" when `over`."""
    if new[-1] in options.eos_token_ids or any(stop(prompt, new) for stop in stopping):
        return "stop"
    return "length" if over else None


def deadline(options: Options) -> float:
    """When ``max_time`` is over, on the monotonic clock."""
    return float("inf") if options.max_time is None else time.monotonic() + options.max_time


def likeliest(logprobs: Array, n: int) -> tuple[tuple[int, float], ...]:
    """The n likeliest tokens and their log-probabilities, best first."""
    if not n:
        return ()
    return tuple((int(token), float(logprobs[token])) for token in highest(logprobs, n))

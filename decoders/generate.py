"""Running a decoding task: options are assembled into a `Task`, and the chosen search runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import methods
from .base.errors import require
from .base.interface import Completion, Stepper, Stopping, Token
from .base.method import Place
from .base.task import Named, Prompt, Sampler, Task
from .options import Options
from .processors.order import rank
from .random.draws import argmax, from_stream, from_uniforms, seeded
from .searches.collected import collected


def generate(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> list[Completion]:
    """Return the completions of every prompt, ``num_return_sequences`` each, side by side, as in transformers.

    A list given as `trace` records what happened: for a search as its module says, otherwise a `TokenStep` for each id,
    which says what each processor removed (`base.watching`).

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> import decoders
        >>> options = decoders.Options(max_new_tokens=4, do_sample=True, top_k=5, seed=1)
        >>> (one,) = decoders.generate(model.start(), [[5, 6, 7]], options)
        >>> len(one.ids), one.finish_reason
        (4, 'length')
    """
    task, search = prepared(stepper, prompts, options, context, stopping, trace), options.search
    if search.streams:
        return collected(task)
    found: list[Completion] = search.run(task, **options.values(search))  # type: ignore[misc]
    return found


def stream(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> Iterator[Token]:
    """Yield each new id of each row as it is chosen; searches that must know the whole text first can't stream.

    Rows are the prompts, each ``num_return_sequences`` times, side by side. A row ends with an end-of-text or a
    `stopping` callable ("stop"), or when its room is used up ("length"). A list given as `trace` records a `TokenStep`
    for each id.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> import decoders
        >>> tokens = decoders.stream(model.start(), [[5, 6, 7]], decoders.Options(max_new_tokens=2))
        >>> [token.finish_reason for token in tokens]
        [None, 'length']
    """
    task = prepared(stepper, prompts, options, context, stopping, trace)
    return task.write(task)


def prepared(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    context: int | None,
    stopping: Sequence[Stopping],
    trace: list[Any] | None,
) -> Task:
    """Build the task that the options describe. ``ValueError`` for a prompt that is empty or longer than the
    context.
    """
    o, writer = options, options.writer
    longest_other = 0
    stopping = [partial(answered, stop) for stop in stopping]
    stopping += [one.stop(**o.values(one)) for one in o.acting if one.stop is not None]
    if o.negative_prompt_ids is not None:
        from .processors.guidance import check_prompts, longest_negative_prompt

        check_prompts(o.negative_prompt_ids, len(prompts))
        longest_other = longest_negative_prompt(o.negative_prompt_ids)
    if o.constraint is not None:
        from .processors.constraint import stops

        stopping = stops(o.constraint, o.eos_token_ids, o.most, stopping)
    if context is not None and writer.feeds_last:
        context -= 1
    asked = []
    for number, ids in enumerate(prompts):
        space = room(ids, o.most(len(ids)), context, longest_other)
        asked.append(Prompt(list(ids), space, partial(chain, o, number, len(ids), len(ids) + space)))
    choose: Sampler = argmax
    draws = None
    if o.do_sample and o.uniforms is not None:
        choose = from_uniforms(o.uniforms)
    elif o.do_sample:
        draws = seeded(o.seed, o.rng, o.value("cuda_multiprocessors"))
        choose = from_stream(draws)
    return Task(
        stepper,
        asked,
        o.num_return_sequences,
        o.eos_token_ids,
        stopping,
        float("inf") if o.max_time is None else time.monotonic() + o.max_time,
        o.constraint is not None,
        choose,
        draws,
        o.check_vocabulary,
        partial(write, o),
        o.top_logprobs,
        o.output_scores,
        trace,
    )


def write(options: Options, task: Task) -> Iterator[Token]:
    """Yield a task's tokens one by one, by the method that the options select."""
    writer = options.writer
    own = {} if writer.name == "token by token" else options.values(writer)
    tokens: Iterator[Token] = writer.run(task, **own)  # type: ignore[misc]
    return tokens


def answered(stop: Stopping, prompt: Sequence[int], new: Sequence[int]) -> bool:
    """Return whether a callable stops here; ``ValueError`` if its answer isn't a bool."""
    answer = stop(prompt, new)
    require(isinstance(answer, (bool, np.bool_)), "stopping_criteria must answer True or False", answer)
    return bool(answer)


def room(prompt: Sequence[int], most: int, context: int | None, longest_other: int = 0) -> int:
    """Return how many ids may follow a prompt: as asked, but no more than the context holds (the last needn't be fed).

    `longest_other` is the length of the longest text that must fit beside it. ``ValueError`` when the prompt is empty
    or longer than the context.
    """
    if not len(prompt):
        raise ValueError("a prompt must have at least one id, got none")
    if context is None:
        return most
    if len(prompt) > context:
        raise ValueError(f"the prompt must have at most {context} tokens, the model's context, got {len(prompt)}")
    return min(most, context - max(len(prompt), longest_other) + 1)


def chain(options: Options, prompt: int, prompt_length: int, max_length: int, taken: Sequence[int] = ()) -> list[Named]:
    """Build the processors that the scores of prompt number `prompt` pass through at each step.

    The order is that of `methods.PROCESSORS`, unless an order or a profile says otherwise; warpers act only when
    sampling. `max_length` counts the prompt. `taken` is a list that diverse beam search keeps (see `Place`).
    """
    o = options
    acting = [one for one in o.acting if one.make is not None and (one.only != "sampling" or o.do_sample)]
    if not acting:
        return []
    keep = o.min_tokens_to_keep or (1 if o.num_beams == 1 else max(2, len(o.eos_token_ids) + 1))
    place = Place(prompt, prompt_length, max_length, o.eos_token_ids, keep, taken)
    profile = None if o.profile is None else methods.profile(o.profile)
    named = []
    for one in acting:
        make = one.make if profile is None else profile.makes.get(one.name, one.make)
        processor = make(place, **o.values(one))  # type: ignore[misc]
        if processor is not None:
            given = ", ".join(name for name in one.concerned_by if name in o.given)
            named.append((one.last, Named(one.name, processor, one.forces, one.forbids, one.has_past, given)))
    order = o.order if profile is None or o.order is not None else profile.order
    if order is not None:
        named.sort(key=lambda pair: rank(pair[1].option, pair[0], order))
    return [one for _, one in named]

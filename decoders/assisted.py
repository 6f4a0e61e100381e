"""Assistance: several tokens in one pass of the model, and still the text that it would have written alone.

Candidates for the next tokens are proposed cheaply, from the text itself or by a smaller model; the model sees all of
them in one pass and keeps those that it agrees with. Leviathan et al. 2023, "Fast Inference from Transformers via
Speculative Decoding"; Chen et al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling"; the
rules are those of transformers' ``_assisted_decoding``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from . import pipeline, steps
from .candidates import Candidates, Draft, PromptLookup
from .errors import require
from .generate import deadline, finish_reason, likeliest, room
from .interface import Assistance, RewindableStepper, Stepper, Stopping, Token, log_softmax, softmax
from .options import Options
from .sampling import multinomial, sampler, seeded
from .torch_rng import Stream

Array = np.ndarray

# (the place among the candidates, the (1, V) scores there) → the id that follows.
Choose = Callable[[int, Array], int]

# So many ids a pass: where weights are streamed from memory, few positions give the same bits as one at a time.
AT_ONCE = 48


def assisted(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> Iterator[Token]:
    """Each new id as it is chosen, one text after the other: `num_return_sequences` of each prompt.

    Greedy decoding gives the tokens and scores that it gives without assistance, and so does sampling one text with
    prompt look-up, for the same seed: a candidate is kept where it is what would have been drawn. A draft model's
    candidates are kept by rejection sampling: the same distribution, but for a seed another text than without, and than
    transformers'. A list given as `trace` receives a `steps.TokenStep` for each id.
    """
    rule = "assistance needs a stepper that can take ids back (feed_all and rewind)"
    require(hasattr(stepper, "feed_all") and hasattr(stepper, "rewind"), rule, type(stepper).__name__)
    drafting = options.assistant_model is not None and options.do_sample
    stream = seeded(options) if drafting else None
    sample = sampler(options)
    numbers = [number for number in range(len(prompts)) for _ in range(options.num_return_sequences)]
    rooms, until = [room(prompt, options, context) for prompt in prompts], deadline(options)
    ahead = Verification(cast(RewindableStepper, stepper))
    for row, number in enumerate(numbers):
        prompt, space = prompts[number], rooms[number]
        chain = pipeline.build(options, number, len(prompt), len(prompt) + space)
        text, passes, proposed, accepted = list(prompt), 0, 0, 0
        ahead.begin(prompt)
        options.check_vocabulary(ahead.V)
        source = candidates(options, number, len(prompt), len(prompt) + space, ahead.V, stream)
        reason = None
        while reason is None:
            found, drawn_from = source.propose(text, len(prompt) + space - len(text) - 1)
            choose: Choose = (
                rejecting(stream, found, drawn_from)
                if stream is not None
                else lambda place, scores: int(sample(scores, [0], 1)[0])
            )
            start, passes = len(text), passes + 1
            for place, logits in enumerate(ahead.follow(text, found)):
                changes: list[steps.Change] = []
                watch = None if trace is None else steps.watching([changes])
                scores = pipeline.side_by_side([chain], [(0, text)], logits, watch)
                token, logprobs = choose(place, scores), log_softmax(logits[0])
                agreed = place < len(found) and token == found[place]
                text.append(token)
                new = text[len(prompt) :]
                over = time.monotonic() > until or len(new) == space
                reason = finish_reason(prompt, new, over, options, stopping)
                accepted += agreed
                if trace is not None:
                    trace.append(
                        steps.token_step(
                            row, len(new), token, float(logprobs[token]), logits[0], scores[0], changes, reason
                        )
                    )
                ended = None
                if reason is not None:
                    ended = Assistance(passes, proposed + len(found), accepted, source.passes)
                yield Token(
                    row,
                    token,
                    float(logprobs[token]),
                    reason,
                    likeliest(logprobs, options.top_logprobs),
                    scores[0].copy() if options.output_scores else None,
                    ended,
                )
                if reason is not None or not agreed:
                    break
            proposed += len(found)
            source.learn(len(found), len(text) - start - 1)


def candidates(
    options: Options, prompt: int, prompt_length: int, max_length: int, V: int, stream: Stream | None
) -> Candidates:
    """The source of candidates that the options ask for."""
    if options.assistant_model is None:
        return PromptLookup(options, prompt, prompt_length, max_length, V)
    return Draft(options, prompt, prompt_length, max_length, V, options.assistant_model(), stream)


class Verification:
    """What the model says after a text and after each of its candidates, one text at a time."""

    def __init__(self, stepper: RewindableStepper) -> None:
        self.stepper, self.fed = stepper, 0
        self.newest: Array | None = None  # (1, V) logits after the prompt, until they are used

    def begin(self, prompt: Sequence[int]) -> None:
        """Feed a prompt, in the place of the text before."""
        if self.fed:
            self.stepper.rewind([self.fed])
        self.newest, self.fed = self.stepper.feed([prompt]), len(prompt)
        self.V = self.newest.shape[-1]

    def follow(self, text: Sequence[int], candidates: Sequence[int]) -> Iterator[Array]:
        """(1, V) logits after the text, then after each candidate, as long as they are asked for.

        What was fed and isn't asked for any more is taken back before the next call.
        """
        kept = len(text) - (self.newest is None)
        if self.fed > kept:
            self.stepper.rewind([self.fed - kept])
            self.fed = kept
        waiting = [*text[kept:], *candidates]
        if self.newest is not None:
            first, self.newest = self.newest, None
            yield first
        for start in range(0, len(waiting), AT_ONCE):
            part = waiting[start : start + AT_ONCE]
            (logits,) = self.stepper.feed_all([part])
            self.fed += len(part)
            yield from logits[:, None]


def rejecting(stream: Stream, candidates: Sequence[int], drawn_from: Sequence[Array]) -> Choose:
    """Algorithm 1 of Leviathan et al.: with probability p / q a candidate stays, else a draw from (p − q)₊ replaces it.

    `drawn_from` are the q, (V,) each; p are the scores' probabilities. Behind the last candidate a draw from p.
    """
    uniforms = stream.uniform(len(candidates)) if candidates else ()

    def choose(place: int, scores: Array) -> int:
        p = softmax(scores)
        if place < len(candidates):
            token, q = candidates[place], drawn_from[place]
            ratio = p[0, token] / q[token]
            if ratio > 0 and uniforms[place] <= ratio:
                return token
            rest = np.maximum(p - q, 0)
            total = rest.sum()
            p = rest / total if total > 0 else p  # no rest: rounding alone was in the way
        return int(multinomial(stream, p, 1, [0], 1)[0, 0])

    return choose

"""Exhaustive search: every text that could be written, for vocabularies and lengths small enough to count.

The oracle of beam search: same scores, nothing pruned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import pipeline
from .beam import Beam, completion
from .errors import require
from .generate import finish_reason, room
from .interface import Completion, Stepper, Stopping, log_softmax
from .options import Options

LIMIT = 2**18  # texts


def exhaustive_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[tuple[Beam, ...]] | None = None,
) -> list[Completion]:
    """The ``num_return_sequences`` best of all texts that end or fill their room, best first, side by side.

    A text's score is its sum of log-probabilities, after processors, over length ** ``length_penalty``, as in beam
    search. A list given as `trace` receives every text of each prompt, best first. ``ValueError`` when there would be
    more than `LIMIT` texts, or fewer than are to be returned.
    """
    penalty = 1.0 if options.length_penalty is None else options.length_penalty
    rooms = [room(prompt, options, context) for prompt in prompts]
    chains = [
        pipeline.build(options, number, len(prompt), len(prompt) + space)
        for number, (prompt, space) in enumerate(zip(prompts, rooms, strict=True))
    ]
    logits = stepper.feed(prompts)
    V = logits.shape[-1]
    options.check_vocabulary(V)
    rule = f"exhaustive search looks at no more than {LIMIT} texts: {V} tokens ** max_new_tokens"
    require(all(V**space <= LIMIT for space in rooms), rule, max(rooms))

    growing = [(number, Beam((), (), 0.0)) for number in range(len(prompts))]
    ended: list[list[Beam]] = [[] for _ in prompts]
    while growing:
        own, parents, grown = log_softmax(logits), [], []
        texts = [(number, [*prompts[number], *beam.ids]) for number, beam in growing]
        scores = pipeline.side_by_side(chains, texts, own)
        for place, (number, old) in enumerate(growing):
            prompt = prompts[number]
            for token in np.flatnonzero(scores[place] > -np.inf).tolist():
                ids, total = (*old.ids, token), old.score + float(scores[place, token])
                reason = finish_reason(prompt, ids, len(ids) == rooms[number], options, stopping)
                beam = Beam(ids, (*old.logprobs, float(own[place, token])), total, reason)
                if reason is None:
                    parents.append(place)
                    grown.append((number, beam))
                else:
                    normalised = total / len(ids) ** penalty
                    ended[number].append(Beam(ids, beam.logprobs, normalised, reason))
        growing = grown
        if growing:
            stepper.reorder(parents)
            logits = stepper.feed([beam.ids[-1:] for _, beam in growing])
    best = []
    for beams in ended:
        beams.sort(key=lambda beam: -beam.score)
        rule = f"num_return_sequences must be at most the number of texts there are ({len(beams)})"
        require(options.num_return_sequences <= len(beams), rule, options.num_return_sequences)
        best += [completion(beam) for beam in beams[: options.num_return_sequences]]
        if trace is not None:
            trace.append(tuple(beams))
    return best

"""Exhaustive search: scores every possible text, for vocabularies and lengths small enough.

The oracle of beam search: same scores, nothing pruned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..base.errors import require
from ..base.interface import Completion, log_softmax
from ..base.method import Method, Option
from ..base.task import Task
from ..base.value_types import FLAG
from ..processors import pipeline
from .beam_common import Beam, check_length_penalty, completion, row_details

LIMIT = 2**18  # texts


def exhaustive_search(task: Task, length_penalty: float) -> list[Completion]:
    """The ``task.copies`` best of all texts that end or fill their room, best first, side by side.

    A text's score is its sum of log-probabilities, after processors, over length ** ``length_penalty``, as in beam
    search. The task's trace receives every text of each prompt, best first. ``ValueError`` when there would be more
    than `LIMIT` texts, or fewer than are to be returned.
    """
    prompts, copies = task.prompts, task.copies
    check_length_penalty(length_penalty, prompts)
    chains = [prompt.chain(()) for prompt in prompts]
    logits = task.feed_prompts()
    V = logits.shape[-1]
    rule = f"exhaustive search looks at no more than {LIMIT} texts: {V} tokens ** max_new_tokens"
    require(all(V**prompt.room <= LIMIT for prompt in prompts), rule, max(prompt.room for prompt in prompts))

    growing = [(number, Beam((), (), 0.0)) for number in range(len(prompts))]
    ended: list[list[Beam]] = [[] for _ in prompts]
    while growing:
        own, parents, grown = log_softmax(logits), [], []
        texts = [(number, [*prompts[number].ids, *beam.ids]) for number, beam in growing]
        scores = pipeline.side_by_side(chains, texts, own)
        told = row_details(task, own, scores, [None] * len(growing))
        for place, (number, old) in enumerate(growing):
            for token in np.flatnonzero(scores[place] > -np.inf).tolist():
                ids, total = (*old.ids, token), old.score + float(scores[place, token])
                reason = task.finish_reason(prompts[number], ids, late=False)
                beam = old.then(token, float(own[place, token]), total, reason, told[place])
                if reason is None:
                    parents.append(place)
                    grown.append((number, beam))
                else:
                    ended[number].append(replace(beam, score=total / len(ids) ** length_penalty))
        growing = grown
        if growing:
            task.stepper.reorder(parents)
            logits = task.stepper.feed([beam.ids[-1:] for _, beam in growing])
    best = []
    for beams in ended:
        beams.sort(key=lambda beam: -beam.score)
        rule = f"num_return_sequences must be at most the number of texts there are ({len(beams)})"
        require(copies <= len(beams), rule, copies)
        best += [completion(beam) for beam in beams[:copies]]
        if task.trace is not None:
            task.trace.append(tuple(beams))
    return best


METHODS = (
    Method(
        "exhaustive",
        options=(
            Option(
                "exhaustive", FLAG, False, group="Best of many", help="Search all texts exhaustively, for tiny models."
            ),
        ),
        run=exhaustive_search,
        unread=("exhaustive",),
        reads=("length_penalty",),
        takes=("length_penalty",),
        excludes=("do_sample", "num_beams", "early_stopping", "max_time"),
        trials={"exhaustive": {"exhaustive": True, "max_new_tokens": 3}},
    ),
)

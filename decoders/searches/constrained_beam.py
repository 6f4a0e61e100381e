"""Constrained beam search: the text must contain given phrases, anywhere.

Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation", after Hokamp and Liu 2017, as
transformers 4 does it (``_constrained_beam_search``, ``ConstrainedBeamSearchScorer``, ``beam_constraints``); version 5
has moved it out of its core. Each step looks at the usual candidates and at those that advance a constraint by one
token; the beam is then divided among *banks*, groups of candidates that have made the same progress.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.given import excluded
from ..base.interface import Array, Completion, log_softmax
from ..base.method import Documentation, Method, Option
from ..base.task import Named, Prompt, Task
from ..base.value_types import ValueType, flat, is_id, is_list
from ..base.watching import Change
from .beam_common import (
    NOTHING_LEFT,
    OUT_OF_TIME,
    Beam,
    Scored,
    candidates_a_step,
    check_length_penalty,
    first_beams,
    possible,
    processed,
    returned,
    tell,
)
from .finished import Early, Pool, candidates, ranked, split
from .phrases import Choice, Progress, choices

BY = "force_words_ids and the other options"


@dataclass
class Search:
    """One prompt's search."""

    prompt: Prompt
    chain: list[Named]
    running: list[Beam]
    pool: Pool
    stopped: str | None = None
    changes: list[list[Change]] = field(default_factory=list)


def constrained_beam_search(
    task: Task, num_beams: int, force_words_ids: Sequence[Any], length_penalty: float, early_stopping: Early
) -> list[Completion]:
    """The ``task.copies`` best hypotheses that contain ``force_words_ids``, best first, side by side.

    A text may end only once its constraints are met. Where there are not enough such texts when no room is left, the
    best others fill up, as in transformers. The task's trace receives a `Step` for each prompt and step.
    """
    check_length_penalty(length_penalty, task.prompts)
    logits = task.feed_prompts(num_beams)
    constraints = choices(force_words_ids)
    searches = [
        Search(
            prompt,
            prompt.chain(()),
            first_beams(num_beams),
            Pool(num_beams, prompt.room, length_penalty, early_stopping, task),
        )
        for prompt in task.prompts
    ]
    while True:
        own, first, rows = log_softmax(logits), 0, list[int]()
        late = task.late()
        for number, search in enumerate(searches):
            if search.stopped is not None:
                continue
            last = first + len(search.running)
            grown, parents = advance(task, number, search, own[first:last], constraints, num_beams, late)
            tell(task, number, grown, search.running, search.pool.beams, search.stopped, search.changes)
            if search.stopped is None:
                rows += [first + parent for parent in parents]
            first = last
        if not rows:
            break
        task.stepper.reorder(rows)
        running = [beam for search in searches if search.stopped is None for beam in search.running]
        logits = task.stepper.feed([beam.ids[-1:] for beam in running])
    return [one for search in searches for one in returned(ranked(search.pool.beams), task, length_penalty, BY)]


def advance(
    task: Task, number: int, search: Search, own: Array, constraints: Sequence[Choice], beams: int, late: bool
) -> tuple[list[Beam], list[int]]:
    """One step from the model's (beams, V) log-probabilities: the usual candidates, and the new beams' parents."""
    prompt, old = search.prompt, search.running

    def meets(ids: Sequence[int]) -> bool:
        return Progress.of(constraints, [*prompt.ids, *ids]).complete

    def add(beam: Beam) -> None:
        if meets(beam.ids[:-1] if beam.ids[-1] in task.eos else beam.ids):
            search.pool.add(beam)

    def ends(ids: tuple[int, ...]) -> bool:
        return task.ends(prompt, ids)

    scored = processed(task, prompt, search.chain, old, own, number * beams)
    search.changes = scored.changes
    grown, parents = candidates(old, scored, own, candidates_a_step(beams, task), ends)
    running, parents = split(grown, parents, beams, add)
    search.running, parents = share_out(task, prompt, old, running, parents, scored, own, constraints, beams)
    search.stopped = search.pool.stops(grown, search.running, late)
    if search.stopped in (NOTHING_LEFT, OUT_OF_TIME):
        good = [beam for beam in search.running if meets(beam.ids)]
        short = len(good) < task.copies
        for beam in good + [beam for beam in search.running if short and not meets(beam.ids)]:
            search.pool.add(replace(beam, finish_reason="length"))
    return grown, parents


def share_out(
    task: Task,
    prompt: Prompt,
    old: list[Beam],
    running: list[Beam],
    parents: list[int],
    scored: Scored,
    own: Array,
    constraints: Sequence[Choice],
    size: int,
) -> tuple[list[Beam], list[int]]:
    """The new beams and their parents: of each bank the best, the fullest bank first, then each bank's second best …

    Candidates are those that would run on anyway and those that take a constraint of an old beam further
    (``step_sentence_constraint``).
    """
    beams, places = list(running), list(parents)
    states = [Progress.of(constraints, [*prompt.ids, *beam.ids]) for beam in running]
    known = {beam.ids for beam in running}
    for parent, beam in enumerate(old):
        progress = Progress.of(constraints, [*prompt.ids, *beam.ids])
        for token in progress.helpful():
            further, ids = progress.then(token), (*beam.ids, token)
            total, told = scored.totals[parent, token], scored.details[parent]
            grown = beam.then(token, float(own[parent, token]), total, None, told)
            over = task.constrained and task.ends(prompt, ids)  # else asked at its next token, as in transformers
            if ids not in known and possible(grown, task) and not over:
                known.add(ids)
                beams.append(grown)
                places.append(parent)
                states.append(further)
    if len(beams) == len(running):
        return running, parents
    banks = np.array([state.bank for state in states])
    # One key for both, as there: a hundred nats are worth a bank.
    order = np.argsort(
        -(banks.astype(np.float32) * 100 + np.array([beam.score for beam in beams], np.float32)), kind="stable"
    )
    ranks, rank = [], -1
    for before, place in zip([order[0], *order], order, strict=False):
        rank = rank + 1 if banks[place] == banks[before] else 0
        ranks.append(rank)
    chosen = order[np.argsort(ranks, kind="stable")][:size].tolist()
    return [beams[place] for place in chosen], [places[place] for place in chosen]


def is_words(value: Any) -> bool:
    """Tell whether a value is a list of phrases, or of choices of phrases, none of them empty."""
    if not is_list(value) or not len(value) or not all(is_list(entry) and len(entry) for entry in value):
        return False
    phrases = [phrase for entry in value for phrase in (entry if is_list(entry[0]) else [entry])]
    return all(is_list(phrase) and len(phrase) > 0 and all(map(is_id, phrase)) for phrase in phrases)


WORDS = ValueType(
    "words",
    "Sequence[Sequence[int] | Sequence[Sequence[int]]]",
    "a list of phrases (lists of ids) or of lists of phrases",
    is_words,
    flat,
)


def check(options: Any) -> None:
    """There are beams, no phrase of a choice begins another, and none holds an end-of-text."""
    forced = options.force_words_ids
    for entry in forced:
        if is_list(entry[0]):
            ordered = sorted(list(phrase) for phrase in entry)
            for one, longer in itertools.pairwise(ordered):
                begins = longer[: len(one)] == one
                require(not begins, "no phrase of a choice in force_words_ids may begin another", [one, longer])
    if options.num_beams == 1:
        raise ValueError("force_words_ids acts only in beam search; give num_beams above 1 too")
    excluded("force_words_ids", options, "do_sample", "num_beam_groups", "stochastic_beams")
    ends = set(flat(forced)) & set(options.eos_token_ids)
    require(not ends, "force_words_ids must not hold an end-of-text", sorted(ends))


METHODS = (
    Method(
        "constrained beams",
        options=(
            Option(
                "force_words_ids",
                WORDS,
                group="Beam search",
                flag="--force-words",
                repeatable=True,
                in_text="Sequence[str | Sequence[int] | Sequence[str | Sequence[int]]]",
                help="The text must contain this (spaces count), or one of several alternatives; repeatable.",
            ),
        ),
        run=constrained_beam_search,
        reads=("num_beams", "length_penalty", "early_stopping"),
        check=check,
        documentation=(
            Documentation(
                "constrained beams",
                what="Every text contains the words that are required.",
                formula=r"\text{banks by words met}",
                source="transformers 4; Post and Vilar 2018",
                when="For terms that must appear.",
                example={"num_beams": 4, "force_words_ids": [" castle"]},
            ),
        ),
        trials={"constrained beams": {"num_beams": 4, "force_words_ids": [[7, 8]]}},
    ),
)

"""Diverse beam search: groups of beams, each penalised for the tokens that the groups before it have just chosen.

Vijayakumar et al. 2018, "Diverse Beam Search for Improved Description of Complex Scenes", algorithm 1 with Hamming
diversity, scored, stopped and ordered as transformers 4 does it (``GenerationMixin._group_beam_search``,
``BeamSearchScorer``); version 5 has moved it out of its core.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from . import pipeline
from .beam import NEVER, Beam, Step, possible, returned
from .generate import deadline, room
from .interface import Completion, Stepper, Stopping, log_softmax
from .options import Options
from .pool import Pool, candidates, ranked, split
from .steps import Change, watching

Array = np.ndarray


@dataclass
class Group:
    """One group of one prompt: its growing beams, its ended ones, and why it has stopped, if it has."""

    running: list[Beam]
    pool: Pool
    chain: list[pipeline.Named]
    stopped: str | None = None
    changes: list[list[Change]] = field(default_factory=list)


@dataclass
class Search:
    """One prompt's search."""

    number: int
    prompt: list[int]
    space: int
    groups: list[Group]
    taken: list[int]  # what the groups before have chosen in this step; the groups' chains read it

    @property
    def running(self) -> list[tuple[Group, Beam]]:
        """Every beam that is still fed, group by group."""
        return [(group, beam) for group in self.groups if group.stopped is None for beam in group.running]


def group_beam_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Step] | None = None,
) -> list[Completion]:
    """The ``num_return_sequences`` best hypotheses of each prompt out of all its groups, best first, side by side.

    ``num_beams`` beams run in ``num_beam_groups`` groups. In each step the groups choose one after the other, each
    losing ``diversity_penalty`` per earlier group's beam that has just taken the same token. Scores in the result
    contain these penalties, as in transformers. A list given as `trace` receives a `Step` for each prompt, group
    and step.
    """
    size, until = options.num_beams // options.num_beam_groups, deadline(options)
    searches = [start(number, prompt, room(prompt, options, context), options) for number, prompt in enumerate(prompts)]
    logits = np.repeat(stepper.feed(prompts), options.num_beams, axis=0)
    options.check_vocabulary(logits.shape[-1])
    stepper.reorder([search.number for search in searches for _ in search.running])
    while True:
        own, first, rows = log_softmax(logits), 0, list[int]()
        late = time.monotonic() > until
        for search in searches:
            search.taken.clear()
            for number, group in enumerate(search.groups):
                if group.stopped is not None:
                    # transformers fills what has ended with the pad token, and the penalty counts it.
                    pad = options.pad_token_id
                    pad = next(iter(options.eos_token_ids), None) if pad is None else pad
                    search.taken += [] if pad is None else [pad] * size
                    continue
                last = first + len(group.running)
                grown, parents = advance(
                    search, group, own[first:last], size, options, stopping, late, watched=trace is not None
                )
                search.taken += [beam.ids[-1] for beam in group.running]
                if trace is not None:
                    trace.append(
                        Step(
                            search.number,
                            tuple(grown),
                            tuple(group.running),
                            tuple(group.pool.beams),
                            group.stopped is None,
                            group.stopped,
                            number,
                            tuple(map(tuple, group.changes)),
                        )
                    )
                if group.stopped is None:
                    rows += [first + parent for parent in parents]
                first = last
        if not rows:
            break
        stepper.reorder(rows)
        logits = stepper.feed([beam.ids[-1:] for search in searches for _, beam in search.running])
    ended = [ranked([beam for group in search.groups for beam in group.pool.beams]) for search in searches]
    return [one for beams in ended for one in returned(beams, options)]


def start(number: int, prompt: Sequence[int], space: int, options: Options) -> Search:
    """A prompt before the first step: in each group all beams are alike, and only the first may be chosen from."""
    size, taken = options.num_beams // options.num_beam_groups, list[int]()
    groups = [
        Group(
            [Beam((), (), np.float32(0 if rank == 0 else NEVER)) for rank in range(size)],
            Pool(size, space, options),
            pipeline.build(options, number, len(prompt), len(prompt) + space, taken),
        )
        for _ in range(options.num_beam_groups)
    ]
    return Search(number, list(prompt), space, groups, taken)


def advance(
    search: Search,
    group: Group,
    own: Array,
    size: int,
    options: Options,
    stopping: Sequence[Stopping],
    late: bool,
    watched: bool,
) -> tuple[list[Beam], list[int]]:
    """One step of one group, from the model's (beams, V) log-probabilities: its candidates and the parents of its
    new beams."""

    def ends(ids: tuple[int, ...]) -> bool:
        return ids[-1] in options.eos_token_ids or any(stop(search.prompt, ids) for stop in stopping)

    texts = [np.array([*search.prompt, *beam.ids]) for beam in group.running]
    so_far = np.array([[beam.score] for beam in group.running], np.float32)
    group.changes = [[] for _ in texts]
    watch = watching(group.changes) if watched else None
    totals = so_far + pipeline.apply(group.chain, texts, own, so_far, watch)
    grown, parents = candidates(group.running, totals, own, max(2, 1 + len(options.eos_token_ids)) * size, ends)
    group.running, parents = split(grown, parents, size, group.pool.add)
    length = len(grown[0].ids)
    if group.pool.settled(float(grown[0].score), length):
        group.stopped = (
            "the pool is full" if options.early_stopping is True else "no growing beam can beat the worst in the pool"
        )
    elif length == search.space or late or not any(possible(beam, options) for beam in group.running):
        group.stopped = "max_time" if late and length < search.space else "no candidate goes on"
        for beam in group.running:
            group.pool.add(replace(beam, finish_reason="length"))
    return grown, parents

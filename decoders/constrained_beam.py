"""Constrained beam search: phrases that the text must contain, in whatever place suits it best.

Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation", after Hokamp and Liu 2017, as
transformers 4 does it (``_constrained_beam_search``, ``ConstrainedBeamSearchScorer``, ``beam_constraints``); version 5
has moved it out of its core. Each step looks at the usual candidates and at those that take a constraint one token
further; the beam is then shared out between *banks*, candidates that are equally far with their constraints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
Choice = tuple[tuple[int, ...], ...]  # phrases of which one must occur; a single phrase is a choice of one


def choices(forced: Sequence) -> tuple[Choice, ...]:
    """``force_words_ids`` as choices: a list of ids is a phrase, a list of such lists a choice of phrases."""
    return tuple(tuple(map(tuple, entry)) if isinstance(entry[0], Sequence) else (tuple(entry),) for entry in forced)


def following(choice: Choice, path: Sequence[int]) -> list[int]:
    """The tokens that take a choice one step further after `path`, in the order of its phrases."""
    n = len(path)
    return list(dict.fromkeys(phrase[n] for phrase in choice if len(phrase) > n and phrase[:n] == tuple(path)))


@dataclass
class Progress:
    """How far a text is with its constraints (``ConstraintListState``).

    At most one choice is under way at a time; a token that breaks it off puts it back at the end of those pending,
    and is itself not looked at again. Tokens of the prompt count.
    """

    longest: int
    pending: list[Choice]
    current: Choice | None = None
    path: list[int] = field(default_factory=list)  # the tokens of `current` so far
    met: int = 0

    @classmethod
    def of(cls, constraints: Sequence[Choice], text: Sequence[int]) -> Progress:
        """The progress of a whole text."""
        longest = max(len(phrase) for choice in constraints for phrase in choice)
        progress = cls(longest, list(constraints))
        for token in text:
            progress.add(token)
        return progress

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.current is None and not self.pending

    @property
    def bank(self) -> int:
        """How far the text is, in tokens; a choice that is met counts as the longest of all phrases."""
        if self.current is None:
            return self.met * self.longest
        remaining = max(map(len, self.current)) - len(self.path)
        return self.met * self.longest + self.longest - remaining

    def helpful(self) -> list[int]:
        """The tokens that would take it further."""
        if self.current is not None:
            return following(self.current, self.path)
        return [token for choice in self.pending for token in following(choice, ())]

    def add(self, token: int) -> None:
        """Read one more token of the text."""
        if self.current is None:
            for place, choice in enumerate(self.pending):
                if token in following(choice, ()):
                    self.current, self.path = choice, [token]
                    del self.pending[place]
                    break
            else:
                return
        elif token in following(self.current, self.path):
            self.path.append(token)
        else:
            self.pending.append(self.current)
            self.current, self.path = None, []
            return
        if not following(self.current, self.path):
            self.met += 1
            self.current, self.path = None, []

    def then(self, token: int) -> Progress:
        """This progress and one more token.

        The path under way is shared between this and what comes of it, not copied: transformers' ``copy`` does so.
        Where a choice of phrases offers several tokens, those tried later therefore find the path already longer,
        and their banks come out accordingly.
        """
        further = replace(self, pending=list(self.pending))
        further.add(token)
        return further


@dataclass
class Search:
    """One prompt's search."""

    prompt: list[int]
    space: int
    chain: list[pipeline.Named]
    running: list[Beam]
    pool: Pool
    stopped: str | None = None
    changes: list[list[Change]] = field(default_factory=list)


def constrained_beam_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Step] | None = None,
) -> list[Completion]:
    """The ``num_return_sequences`` best hypotheses that contain ``force_words_ids``, best first, side by side.

    A text may end only once its constraints are met. Where there are not enough such texts when no room is left, the
    best others fill up, as in transformers. A list given as `trace` receives a `Step` for each prompt and step.
    """
    beams, until = options.num_beams, deadline(options)
    constraints = choices(options.force_words_ids or ())
    searches = []
    for number, prompt in enumerate(prompts):
        space = room(prompt, options, context)
        chain = pipeline.build(options, number, len(prompt), len(prompt) + space)
        # All beams start alike; only the first may be chosen from.
        running = [Beam((), (), np.float32(0 if rank == 0 else NEVER)) for rank in range(beams)]
        searches.append(Search(list(prompt), space, chain, running, Pool(beams, space, options)))

    logits = np.repeat(stepper.feed(prompts), beams, axis=0)
    options.check_vocabulary(logits.shape[-1])
    stepper.reorder([number for number in range(len(prompts)) for _ in range(beams)])
    while True:
        own, first, rows = log_softmax(logits), 0, list[int]()
        late = time.monotonic() > until
        for number, search in enumerate(searches):
            if search.stopped is not None:
                continue
            last = first + len(search.running)
            grown, parents = advance(search, own[first:last], constraints, options, stopping, late, trace is not None)
            if trace is not None:
                trace.append(
                    Step(
                        number,
                        tuple(grown),
                        tuple(search.running),
                        tuple(search.pool.beams),
                        search.stopped is None,
                        search.stopped,
                        changes=tuple(map(tuple, search.changes)),
                    )
                )
            if search.stopped is None:
                rows += [first + parent for parent in parents]
            first = last
        if not rows:
            break
        stepper.reorder(rows)
        logits = stepper.feed([beam.ids[-1:] for one in searches if one.stopped is None for beam in one.running])
    return [one for search in searches for one in returned(ranked(search.pool.beams), options)]


def advance(
    search: Search,
    own: Array,
    constraints: Sequence[Choice],
    options: Options,
    stopping: Sequence[Stopping],
    late: bool,
    watched: bool,
) -> tuple[list[Beam], list[int]]:
    """One step from the model's (beams, V) log-probabilities: the usual candidates, and the new beams' parents."""

    def ends(ids: tuple[int, ...]) -> bool:
        return ids[-1] in options.eos_token_ids or any(stop(search.prompt, ids) for stop in stopping)

    def meets(ids: Sequence[int]) -> bool:
        return Progress.of(constraints, [*search.prompt, *ids]).complete

    def add(beam: Beam) -> None:
        if meets(beam.ids[:-1] if beam.ids[-1] in options.eos_token_ids else beam.ids):
            search.pool.add(beam)

    old = search.running
    texts = [np.array([*search.prompt, *beam.ids]) for beam in old]
    so_far = np.array([[beam.score] for beam in old], np.float32)
    search.changes = [[] for _ in texts]
    watch = watching(search.changes) if watched else None
    totals = so_far + pipeline.apply(search.chain, texts, own, so_far, watch)
    k = max(2, 1 + len(options.eos_token_ids)) * options.num_beams
    grown, parents = candidates(old, totals, own, k, ends)
    running, parents = split(grown, parents, options.num_beams, add)
    search.running, parents = share_out(search.prompt, old, running, parents, totals, own, constraints, options, ends)

    length = len(grown[0].ids)
    if search.pool.settled(float(grown[0].score), length):
        search.stopped = (
            "the pool is full" if options.early_stopping is True else "no growing beam can beat the worst in the pool"
        )
    elif length == search.space or late or not any(possible(beam, options) for beam in search.running):
        search.stopped = "max_time" if late and length < search.space else "no candidate goes on"
        good = [beam for beam in search.running if meets(beam.ids)]
        short = len(good) < options.num_return_sequences
        for beam in good + [beam for beam in search.running if short and not meets(beam.ids)]:
            search.pool.add(replace(beam, finish_reason="length"))
    return grown, parents


def share_out(
    prompt: list[int],
    old: list[Beam],
    running: list[Beam],
    parents: list[int],
    totals: Array,
    own: Array,
    constraints: Sequence[Choice],
    options: Options,
    ends: Callable[[tuple[int, ...]], bool],
) -> tuple[list[Beam], list[int]]:
    """The new beams and their parents: of each bank the best, the fullest bank first, then each bank's second best …

    Candidates are those that would run on anyway and those that take a constraint of an old beam further
    (``step_sentence_constraint``).
    """
    beams, places = list(running), list(parents)
    states = [Progress.of(constraints, [*prompt, *beam.ids]) for beam in running]
    known = {beam.ids for beam in running}
    for parent, beam in enumerate(old):
        progress = Progress.of(constraints, [*prompt, *beam.ids])
        for token in progress.helpful():
            further, ids = progress.then(token), (*beam.ids, token)
            grown = Beam(ids, (*beam.logprobs, float(own[parent, token])), totals[parent, token])
            over = options.constraint is not None and ends(ids)  # else asked at its next token, as in transformers
            if ids not in known and possible(grown, options) and not over:
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
    chosen = order[np.argsort(ranks, kind="stable")][: options.num_beams].tolist()
    return [beams[place] for place in chosen], [places[place] for place in chosen]

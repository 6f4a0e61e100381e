"""Beam search as transformers scores, stops and orders it (``GenerationMixin._beam_search``), and beam sampling."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from . import pipeline
from .errors import require
from .generate import deadline, room
from .interface import Completion, FinishReason, Stepper, Stopping, log_softmax, softmax
from .options import Options
from .ranking import highest
from .sampling import multinomial, seeded
from .steps import Change, watching

Array = np.ndarray
NEVER = np.float32(-1e9)  # what a beam that may not be chosen scores


@dataclass(frozen=True)
class Beam:
    """One hypothesis: the new ids, the model's log-probability of each, and its score."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: np.float32 | float
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Step:
    """One step of one prompt's search: the K candidates, what grows on, the pool, and whether the search goes on.

    Where it doesn't, ``stopped`` says why. ``group`` counts the groups of diverse beam search. ``changes`` tells for
    each beam that was continued (the `running` of the step before) what each processor removed.
    """

    prompt: int
    candidates: tuple[Beam, ...]
    running: tuple[Beam, ...]
    pool: tuple[Beam, ...]
    open: bool
    stopped: str | None = None
    group: int = 0
    changes: tuple[tuple[Change, ...], ...] = ()


@dataclass
class Search:
    """The state of one prompt's search: the beams still growing and the pool of the best that have ended."""

    prompt: list[int]
    space: int
    chain: list[pipeline.Named]
    running: list[Beam]
    pool: list[Beam] = field(default_factory=list)
    grown: list[Beam] = field(default_factory=list)
    changes: list[list[Change]] = field(default_factory=list)
    stopped: str | None = None


def beam_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Step] | None = None,
) -> list[Completion]:
    """The ``num_return_sequences`` best hypotheses of each prompt, best first, side by side.

    At each step the K = max(2, 1 + end-of-texts) × num_beams best continuations of a prompt's beams are looked at
    (or drawn without replacement and then put in order, as transformers does since 5.24). Those of the first num_beams
    that end go to the pool, scored by their sum of log-probabilities over length ** length_penalty; the best that don't
    end grow on. A list given as `trace` receives a `Step` for each prompt and step.
    """
    beams = options.num_beams
    searches = []
    for number, prompt in enumerate(prompts):
        space = room(prompt, options, context)
        chain = pipeline.build(options, number, len(prompt), len(prompt) + space)
        # All beams start alike; only the first may be chosen from.
        running = [Beam((), (), np.float32(0 if rank == 0 else NEVER)) for rank in range(beams)]
        searches.append(Search(list(prompt), space, chain, running))
    stream, until = (seeded(options) if options.do_sample else None), deadline(options)

    logits = np.repeat(stepper.feed(prompts), beams, axis=0)
    options.check_vocabulary(logits.shape[-1])
    V, K = logits.shape[-1], max(2, 1 + len(options.eos_token_ids)) * beams
    stepper.reorder([number for number in range(len(prompts)) for _ in range(beams)])
    growing = list(range(len(prompts)))
    while growing:
        own = log_softmax(logits)
        totals = np.empty((len(growing), beams * V), np.float32)
        for place, number in enumerate(growing):
            search = searches[number]
            texts = [np.array([*search.prompt, *beam.ids]) for beam in search.running]
            so_far = np.array([[beam.score] for beam in search.running])
            search.changes = [[] for _ in texts]
            scores = pipeline.apply(
                search.chain,
                texts,
                own[place * beams : (place + 1) * beams],
                so_far,
                None if trace is None else watching(search.changes),
            )
            with np.errstate(over="ignore"):  # float32's lowest number, for what can't be, may sum up to −inf
                totals[place] = (scores + so_far).ravel()
        if stream is None:
            candidates = np.array([highest(row, K) for row in totals])
        else:
            drawn = multinomial(stream, softmax(totals), K, growing, len(prompts))
            candidates = np.array([places[highest(row[places], K)] for places, row in zip(drawn, totals, strict=True)])

        late = time.monotonic() > until
        rows: list[int] = []
        staying: list[int] = []
        for place, number in enumerate(growing):
            search = searches[number]
            parents = advance(search, candidates[place], totals[place], own[place * beams :], options, stopping, late)
            if trace is not None:
                trace.append(
                    Step(
                        number,
                        tuple(search.grown),
                        tuple(search.running),
                        tuple(search.pool),
                        search.stopped is None,
                        search.stopped,
                        changes=tuple(map(tuple, search.changes)),
                    )
                )
            if search.stopped is None:
                staying.append(number)
                rows += [place * beams + parent for parent in parents]
        growing = staying
        if growing:
            stepper.reorder(rows)
            logits = stepper.feed([beam.ids[-1:] for number in growing for beam in searches[number].running])
    return [one for search in searches for one in returned(search.pool, options)]


def advance(
    search: Search,
    candidates: Array,
    totals: Array,
    own: Array,
    options: Options,
    stopping: Sequence[Stopping],
    late: bool,
) -> list[int]:
    """One step of one prompt's search, from its K candidates (places in beams × V); returns the new beams' parents."""
    beams, V, length = options.num_beams, own.shape[-1], len(search.running[0].ids) + 1
    penalty = 1.0 if options.length_penalty is None else options.length_penalty
    grown, parents = [], []
    for place in candidates.tolist():
        parent, token = divmod(place, V)
        old = search.running[parent]
        ids = (*old.ids, token)
        reason: FinishReason | None = None
        if token in options.eos_token_ids or any(stop(search.prompt, ids) for stop in stopping):
            reason = "stop"
        elif length == search.space or late:
            reason = "length"
        grown.append(Beam(ids, (*old.logprobs, float(own[parent, token])), totals[place], reason))
        parents.append(parent)
    search.grown = grown

    # Only what ends among the first num_beams candidates may enter the pool, where a free place scores NEVER: a beam
    # that is no better (what grew from one that may not be chosen) doesn't take it.
    ended = [
        Beam(beam.ids, beam.logprobs, beam.score / np.float32(length**penalty), beam.finish_reason)
        for beam in grown[:beams]
        if beam.finish_reason and possible(beam, options)
    ]
    ended = [beam for beam in ended if beam.score > NEVER]
    full = len(search.pool) == beams
    if not (full and options.early_stopping is True):
        merged = search.pool + ended
        search.pool = [merged[place] for place in highest(np.array([beam.score for beam in merged]), beams)]

    scores = np.array([beam.score + (NEVER if beam.finish_reason else np.float32(0)) for beam in grown], np.float32)
    chosen = highest(scores, beams)
    search.running = [Beam(grown[place].ids, grown[place].logprobs, scores[place]) for place in chosen]
    if all(beam.finish_reason for beam in grown) or not any(possible(beam, options) for beam in search.running):
        search.stopped = "max_time" if late else "no candidate goes on"
    elif not can_improve(search, length, penalty, options):
        search.stopped = (
            "the pool is full" if options.early_stopping is True else "no growing beam can beat the worst in the pool"
        )
    return [parents[place] for place in chosen]


def possible(beam: Beam, options: Options) -> bool:
    """Whether a beam, its score being a plain sum, may be chosen at all.

    transformers never asks, and neither do we, but for a constraint: it often allows fewer texts than there are beams.
    """
    return options.constraint is None or bool(beam.score > NEVER / 2)


def can_improve(search: Search, length: int, penalty: float, options: Options) -> bool:
    """Whether the best growing beam could still beat the worst in the pool (``_check_early_stop_heuristic``)."""
    if len(search.pool) < options.num_beams:
        return True
    if options.early_stopping is True:
        return False
    hopeful = search.space if options.early_stopping == "never" and penalty > 0 else length
    return bool(search.running[0].score / np.float32(hopeful**penalty) > min(beam.score for beam in search.pool))


def returned(ranked: Sequence[Beam], options: Options) -> list[Completion]:
    """The first ``num_return_sequences`` of some beams.

    ``ValueError`` where they aren't texts that may be written: only as many were left as the processors allow, and
    the rest are what no beam may choose from (transformers returns them, or nothing in their place).
    """
    penalty = 1.0 if options.length_penalty is None else options.length_penalty
    kept = ranked[: options.num_return_sequences]
    possible = [beam for beam in kept if float(beam.score) * len(beam.ids) ** penalty > NEVER / 2]
    rule = f"num_return_sequences must be at most the number of texts found ({len(possible)}); the options forbid more"
    require(len(possible) == options.num_return_sequences, rule, options.num_return_sequences)
    return [completion(beam) for beam in kept]


def completion(beam: Beam) -> Completion:
    """A beam as what the caller gets."""
    reason: FinishReason = beam.finish_reason or "length"
    return Completion(list(beam.ids), list(beam.logprobs), reason, float(beam.score))

"""Parts that all beam searches share: the hypothesis, the trace's step, why a search stops, the returned texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..base.errors import require
from ..base.interface import Array, Completion, FinishReason
from ..base.task import Named, Prompt, Task, TokenDetails
from ..base.watching import Change
from ..processors import pipeline

UNREACHABLE = np.float32(-1e9)  # the score of a beam that may not be chosen

# Powers of ten between which a score can be divided by a number, and none becomes infinite or nothing.
SMALLEST, LARGEST = -28, 38

# Why a search stops.
FULL = "the pool is full"
BEATEN = "no growing beam can beat the worst in the pool"
NOTHING_LEFT = "no candidate goes on"
OUT_OF_TIME = "max_time"


@dataclass(frozen=True)
class Beam:
    """One hypothesis: the new ids, the model's log-probability of each, and its score.

    ``details`` are those of each id, if the task asks for any.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: np.float32 | float
    finish_reason: FinishReason | None = None
    details: tuple[TokenDetails, ...] = ()

    def then(
        self,
        token: int,
        logprob: float,
        score: np.float32 | float,
        finish_reason: FinishReason | None = None,
        details: Sequence[TokenDetails] = (),
    ) -> Beam:
        """The same with one more id."""
        return Beam((*self.ids, token), (*self.logprobs, logprob), score, finish_reason, (*self.details, *details))


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


def first_beams(count: int) -> list[Beam]:
    """Return the beams before the first step: all are alike, and only the first may be chosen from."""
    return [Beam((), (), np.float32(0 if rank == 0 else UNREACHABLE)) for rank in range(count)]


def check_length_penalty(length_penalty: float, prompts: Sequence[Prompt]) -> None:
    """Raise ``ValueError`` if the divisor, a power of the length, leaves float32 or moves scores out of it."""
    for prompt in prompts:
        power = np.log10(float(prompt.room)) * np.float64(length_penalty) if prompt.room > 1 else 0.0
        rule = f"length_penalty must keep length ** length_penalty within float32 up to {prompt.room} new tokens"
        require(SMALLEST <= power <= LARGEST, rule, length_penalty)


def candidates_a_step(beams: int, task: Task) -> int:
    """Return K, the number of candidates per step: enough that beams remain when the best candidates end."""
    return max(2, 1 + len(task.eos)) * beams


class Scored(NamedTuple):
    """A prompt's beams continued by each token: (beams, V) sums, what the processors changed, what is told of each.

    ``details`` holds for each beam those of an id that continues it: one entry, or none if the task asks for none.
    """

    totals: Array
    changes: list[list[Change]]
    details: list[list[TokenDetails]]


def processed(
    task: Task, prompt: Prompt, chain: Sequence[Named], running: Sequence[Beam], own: Array, first: int
) -> Scored:
    """The sums of a prompt's beams continued by each token.

    `own` are the model's (beams, V) log-probabilities; `first` is the number of the first beam's row among those of
    all prompts. ``ValueError`` where a sum passes float32's range.
    """
    texts = [np.array([*prompt.ids, *beam.ids]) for beam in running]
    so_far = np.array([[beam.score] for beam in running], np.float32)
    changes, watch = task.watch(len(texts))
    scores = pipeline.apply(chain, texts, own, so_far, watch)
    with np.errstate(over="ignore"):  # float32's lowest number, for what can't be, may sum up to −inf
        totals: Array = so_far + scores
    if totals.max() == np.inf:
        names = ", ".join(named.option for named in chain)
        raise ValueError(
            f"{names} must keep a beam's sum within float32, got inf after {len(running[0].ids) + 1} tokens"
        )
    return Scored(totals, changes, row_details(task, own, scores, range(first, first + len(running))))


def row_details(task: Task, own: Array, scores: Array, rows: Iterable[int | None]) -> list[list[TokenDetails]]:
    """Return the further facts about an id that continues each of some rows, from (rows, V) log-probabilities and
    scores.
    """
    if not (task.top_logprobs or task.output_scores):
        return [[] for _ in own]
    return [[task.details(mine, seen, row)] for mine, seen, row in zip(own, scores, rows, strict=False)]


def tell(
    task: Task,
    number: int,
    grown: Sequence[Beam],
    running: Sequence[Beam],
    pool: Sequence[Beam],
    stopped: str | None,
    changes: Sequence[Sequence[Change]],
    group: int = 0,
) -> None:
    """Append a `Step` to the task's trace, if there is one."""
    if task.trace is not None:
        told = tuple(map(tuple, changes))
        task.trace.append(
            Step(number, tuple(grown), tuple(running), tuple(pool), stopped is None, stopped, group, told)
        )


def possible(beam: Beam, task: Task) -> bool:
    """Tell whether a beam, whose score is a plain sum, may be chosen at all.

    transformers never asks, and neither do we, but for a constraint: it often allows fewer texts than there are beams.
    """
    return not task.constrained or bool(beam.score > UNREACHABLE / 2)


def returned(ranked: Sequence[Beam], task: Task, length_penalty: float, by: str = "the options") -> list[Completion]:
    """Return the first ``task.copies`` of some beams.

    ``ValueError`` where they aren't texts that may be written: only as many were left as the processors allow, and
    the rest are what no beam may choose from (transformers returns them, or nothing in their place). `by` is what left
    no more.
    """
    kept = ranked[: task.copies]
    written = [beam for beam in kept if float(beam.score) * len(beam.ids) ** length_penalty > UNREACHABLE / 2]
    rule = f"num_return_sequences must be at most the number of texts found ({len(written)}); {by} forbid more"
    require(len(written) == task.copies, rule, task.copies)
    return [completion(beam) for beam in kept]


def completion(beam: Beam) -> Completion:
    """Convert a beam to the caller's `Completion`."""
    reason: FinishReason = beam.finish_reason or "length"
    return with_details(Completion(list(beam.ids), list(beam.logprobs), reason, float(beam.score)), beam.details)


def with_details(completion: Completion, details: Sequence[TokenDetails]) -> Completion:
    """Return a completion with the details of each id."""
    completion.top = [one.top for one in details if one.top]
    completion.scores = [one.scores for one in details if one.scores is not None]
    completion.beam_indices = [one.row for one in details if one.scores is not None and one.row is not None]
    return completion

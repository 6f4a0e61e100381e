"""Beam search and beam sampling, with transformers' scoring, stopping and order (``GenerationMixin._beam_search``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..base.errors import require
from ..base.interface import Array, Completion, FinishReason, log_softmax, softmax
from ..base.method import Documentation, Method, Option
from ..base.ranking import highest
from ..base.task import Named, Prompt, Task, TokenDetails
from ..base.value_types import NUMBER, WHOLE, ValueType
from ..base.watching import Change
from ..random.draws import multinomial
from .beam_common import (
    BEATEN,
    FULL,
    NOTHING_LEFT,
    OUT_OF_TIME,
    UNREACHABLE,
    Beam,
    candidates_a_step,
    check_length_penalty,
    first_beams,
    possible,
    processed,
    returned,
    tell,
)

Early = bool | Literal["never"]


@dataclass
class Search:
    """The state of one prompt's search: the beams still growing and the pool of the best that have ended."""

    prompt: Prompt
    chain: list[Named]
    running: list[Beam]
    pool: list[Beam] = field(default_factory=list)
    grown: list[Beam] = field(default_factory=list)
    changes: list[list[Change]] = field(default_factory=list)
    details: list[list[TokenDetails]] = field(default_factory=list)
    stopped: str | None = None


def beam_search(task: Task, num_beams: int, length_penalty: float, early_stopping: Early) -> list[Completion]:
    """The ``task.copies`` best hypotheses of each prompt, best first, side by side.

    At each step the K = max(2, 1 + end-of-texts) × num_beams best continuations of a prompt's beams are looked at
    (or drawn without replacement and then put in order, as transformers does since 5.24). Those of the first num_beams
    that end go to the pool, scored by their sum of log-probabilities over length ** length_penalty; the best that don't
    end grow on. The task's trace receives a `Step` for each prompt and step.
    """
    check_length_penalty(length_penalty, task.prompts)
    beams, stepper = num_beams, task.stepper
    logits = task.feed_prompts(beams)
    searches = [Search(prompt, prompt.chain(()), first_beams(beams)) for prompt in task.prompts]
    V, K = logits.shape[-1], candidates_a_step(beams, task)
    growing = list(range(len(searches)))
    while growing:
        own = log_softmax(logits)
        totals = np.empty((len(growing), beams * V), np.float32)
        for place, number in enumerate(growing):
            search, mine = searches[number], own[place * beams : (place + 1) * beams]
            scored = processed(task, search.prompt, search.chain, search.running, mine, number * beams)
            totals[place], search.changes, search.details = scored.totals.ravel(), scored.changes, scored.details
        if task.stream is None:
            candidates = np.array([highest(row, K) for row in totals])
        else:
            drawn = multinomial(task.stream, softmax(totals), K, growing, len(searches))
            candidates = np.array([places[highest(row[places], K)] for places, row in zip(drawn, totals, strict=True)])

        late = task.late()
        rows: list[int] = []
        staying: list[int] = []
        for place, number in enumerate(growing):
            search = searches[number]
            grown, parents = grow(task, search, candidates[place], totals[place], own[place * beams :], late)
            chosen = settle(task, search, grown, length_penalty, early_stopping, late)
            tell(task, number, grown, search.running, search.pool, search.stopped, search.changes)
            if search.stopped is None:
                staying.append(number)
                rows += [place * beams + parents[rank] for rank in chosen]
        growing = staying
        if growing:
            stepper.reorder(rows)
            logits = stepper.feed([beam.ids[-1:] for number in growing for beam in searches[number].running])
    return [one for search in searches for one in returned(search.pool, task, length_penalty)]


def grow(
    task: Task, search: Search, candidates: Array, totals: Array, own: Array, late: bool
) -> tuple[list[Beam], list[int]]:
    """Return the K candidates (places in beams × V) as beams, and the places of their parents."""
    V, length = own.shape[-1], len(search.running[0].ids) + 1
    grown, parents = [], []
    for place in candidates.tolist():
        parent, token = divmod(place, V)
        old = search.running[parent]
        reason: FinishReason | None = None
        if task.ends(search.prompt, (*old.ids, token)):
            reason = "stop"
        elif length == search.prompt.room or late:
            reason = "length"
        grown.append(old.then(token, float(own[parent, token]), totals[place], reason, search.details[parent]))
        parents.append(parent)
    return grown, parents


def settle(
    task: Task, search: Search, grown: Sequence[Beam], penalty: float, early_stopping: Early, late: bool
) -> list[int]:
    """Return the ranks of the candidates that go on; update the pool, and decide whether the search stops."""
    beams, length = len(search.running), len(grown[0].ids)
    # Only what ends among the first num_beams candidates may enter the pool, where a free place scores UNREACHABLE: a
    # beam that is no better (what grew from one that may not be chosen) doesn't take it.
    ended = [
        replace(beam, score=beam.score / np.float32(length**penalty))
        for beam in grown[:beams]
        if beam.finish_reason and possible(beam, task)
    ]
    if penalty < 0:
        rule = f"length_penalty must keep the scores of texts above {UNREACHABLE:g}"
        lost = any(beam.score <= UNREACHABLE < beam.score * np.float32(length**penalty) * 2 for beam in ended)
        require(not lost, rule, penalty)
    ended = [beam for beam in ended if beam.score > UNREACHABLE]
    full = len(search.pool) == beams
    if not (full and early_stopping is True):
        merged = search.pool + ended
        search.pool = [merged[place] for place in highest(np.array([beam.score for beam in merged]), beams)]

    scores = np.array(
        [beam.score + (UNREACHABLE if beam.finish_reason else np.float32(0)) for beam in grown], np.float32
    )
    chosen = highest(scores, beams).tolist()
    search.running = [replace(grown[place], score=scores[place], finish_reason=None) for place in chosen]
    if all(beam.finish_reason for beam in grown) or not any(possible(beam, task) for beam in search.running):
        search.stopped = OUT_OF_TIME if late else NOTHING_LEFT
    elif not can_improve(search, length, penalty, early_stopping):
        search.stopped = FULL if early_stopping is True else BEATEN
    return chosen


def can_improve(search: Search, length: int, penalty: float, early_stopping: Early) -> bool:
    """Tell whether the best growing beam could still beat the worst in the pool (``_check_early_stop_heuristic``)."""
    if len(search.pool) < len(search.running):
        return True
    if early_stopping is True:
        return False
    hopeful = search.prompt.room if early_stopping == "never" and penalty > 0 else length
    return bool(search.running[0].score / np.float32(hopeful**penalty) > min(beam.score for beam in search.pool))


def check(options: Any) -> None:
    """Check that there are no more texts than beams, and that draws come from a stream."""
    o = options
    if o.num_return_sequences > o.num_beams:
        raise ValueError(
            f"num_return_sequences must be at most num_beams ({o.num_beams}), got {o.num_return_sequences}"
        )
    if o.uniforms is not None:
        raise ValueError("uniforms can't drive beam sampling, which draws without replacement")


GROUP = "Beam search"
EARLY = ValueType(
    "early", 'bool | Literal["never"]', "True, False or 'never'", lambda value: isinstance(value, (bool, str))
)
METHODS = (
    Method(
        "beam search",
        options=(
            Option(
                "num_beams",
                WHOLE,
                1,
                interval="[1, inf)",
                group=GROUP,
                help="Follow this many texts at once and return the likeliest.",
            ),
            Option(
                "length_penalty",
                NUMBER,
                otherwise=1.0,
                off=(1,),
                only="beams",
                group=GROUP,
                help="Above 0 favours long texts, below 0 short ones.",
            ),
            Option(
                "early_stopping",
                EARLY,
                otherwise=False,
                choices=(True, False, "never"),
                off=(False,),
                only="beams",
                group=GROUP,
                help=(
                    "When the search ends: once there are enough texts (true), once better ones are unlikely "
                    "(false), or once none can be better (never)."
                ),
            ),
        ),
        run=beam_search,
        check=check,
        documentation=(
            Documentation(
                "beam search",
                what="The likeliest beginnings are followed in parallel.",
                formula=r"\frac{\sum \log p}{n^{\,\alpha}}",
                source="transformers, `_beam_search`",
                when="Translation-like tasks with one right answer.",
                example={"num_beams": 4},
            ),
            Documentation(
                "beam sampling",
                what="Beam search whose candidates are drawn without replacement.",
                formula=r"\text{top}_K\; p_i / q_i",
                source="transformers, `_beam_search`",
                when="Some variety among likely texts.",
                example={"num_beams": 4, "temperature": 1.2},
                random=True,
            ),
        ),
        trials={"beam search": {"num_beams": 4}, "beam sampling": {"num_beams": 4, "do_sample": True, "seed": 1}},
    ),
)

"""Diverse beam search: groups of beams, each penalised for the tokens that the groups before it have just chosen.

Vijayakumar et al. 2018, "Diverse Beam Search for Improved Description of Complex Scenes", algorithm 1 with Hamming
diversity, scored, stopped and ordered as transformers 4 does it (``GenerationMixin._group_beam_search``,
``BeamSearchScorer``); version 5 has moved it out of its core.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..base.errors import require
from ..base.given import excluded
from ..base.interface import Array, Completion, log_softmax
from ..base.method import Documentation, Method, Option
from ..base.task import Named, Prompt, Task
from ..base.value_types import ID, NUMBER, WHOLE
from ..base.watching import Change
from .beam_common import (
    NOTHING_LEFT,
    OUT_OF_TIME,
    Beam,
    candidates_a_step,
    check_length_penalty,
    first_beams,
    processed,
    returned,
    tell,
)
from .finished import Early, Pool, candidates, ranked, split


@dataclass
class Group:
    """One group of one prompt: its growing beams, its ended ones, and why it has stopped, if it has."""

    running: list[Beam]
    pool: Pool
    chain: list[Named]
    stopped: str | None = None
    changes: list[list[Change]] = field(default_factory=list)


@dataclass
class Search:
    """One prompt's search. ``taken`` is what the groups before have chosen in this step; the groups' chains read it."""

    prompt: Prompt
    groups: list[Group]
    taken: list[int]

    @property
    def running(self) -> list[Beam]:
        """Every beam that is still fed, group by group."""
        return [beam for group in self.groups if group.stopped is None for beam in group.running]


def group_beam_search(
    task: Task,
    num_beams: int,
    num_beam_groups: int,
    length_penalty: float,
    early_stopping: Early,
    pad_token_id: int | None,
) -> list[Completion]:
    """The ``task.copies`` best hypotheses of each prompt out of all its groups, best first, side by side.

    ``num_beams`` beams run in ``num_beam_groups`` groups. In each step the groups choose one after the other, each
    losing ``diversity_penalty`` per earlier group's beam that has just taken the same token. Scores in the result
    contain these penalties, as in transformers. The task's trace receives a `Step` for each prompt, group and step.
    """
    check_length_penalty(length_penalty, task.prompts)
    size, logits = num_beams // num_beam_groups, task.feed_prompts(num_beams)
    searches = []
    for prompt in task.prompts:
        taken: list[int] = []
        pools = [Pool(size, prompt.room, length_penalty, early_stopping, task) for _ in range(num_beam_groups)]
        groups = [Group(first_beams(size), pool, prompt.chain(taken)) for pool in pools]
        searches.append(Search(prompt, groups, taken))
    # transformers fills what has ended with the pad token, and the penalty counts it.
    pad = next(iter(task.eos), None) if pad_token_id is None else pad_token_id
    filling = [] if pad is None else [pad] * size
    while True:
        own, first, rows = log_softmax(logits), 0, list[int]()
        late = task.late()
        for number, search in enumerate(searches):
            search.taken.clear()
            for rank, group in enumerate(search.groups):
                if group.stopped is not None:
                    search.taken += filling
                    continue
                last = first + len(group.running)
                row = number * num_beams + rank * size
                grown, parents = advance(task, search.prompt, group, own[first:last], late, row)
                search.taken += [beam.ids[-1] for beam in group.running]
                tell(task, number, grown, group.running, group.pool.beams, group.stopped, group.changes, rank)
                if group.stopped is None:
                    rows += [first + parent for parent in parents]
                first = last
        if not rows:
            break
        task.stepper.reorder(rows)
        logits = task.stepper.feed([beam.ids[-1:] for search in searches for beam in search.running])
    ended = [ranked([beam for group in search.groups for beam in group.pool.beams]) for search in searches]
    return [one for beams in ended for one in returned(beams, task, length_penalty)]


def advance(task: Task, prompt: Prompt, group: Group, own: Array, late: bool, row: int) -> tuple[list[Beam], list[int]]:
    """Do one step of one group from the model's (beams, V) log-probabilities; return its candidates and the new beams'
    parents. `row` is the number of its first beam's row.
    """
    size = len(group.running)
    scored = processed(task, prompt, group.chain, group.running, own, row)
    group.changes = scored.changes
    k = candidates_a_step(size, task)
    grown, parents = candidates(group.running, scored, own, k, lambda ids: task.ends(prompt, ids))
    group.running, parents = split(grown, parents, size, group.pool.add)
    group.stopped = group.pool.stops(grown, group.running, late)
    if group.stopped in (NOTHING_LEFT, OUT_OF_TIME):
        for beam in group.running:
            group.pool.add(replace(beam, finish_reason="length"))
    return grown, parents


def check(options: Any) -> None:
    """Check that groups have both of their options, beams that divide evenly, and no draws."""
    o = options
    if o.num_beam_groups == 1:
        raise ValueError("diversity_penalty acts only between groups of beams; give num_beam_groups above 1 too")
    if o.num_beams == 1:
        raise ValueError("num_beam_groups acts only in beam search; give num_beams above 1 too")
    rule = f"num_beam_groups must divide num_beams ({o.num_beams})"
    require(o.num_beams % o.num_beam_groups == 0, rule, o.num_beam_groups)
    rule = "num_beam_groups needs a finite diversity_penalty above 0, or its groups would be alike"
    require(o.diversity_penalty is not None and 0 < o.diversity_penalty < float("inf"), rule, o.diversity_penalty)
    excluded("num_beam_groups", o, "do_sample")


GROUP = "Beam search"
METHODS = (
    Method(
        "diverse beams",
        options=(
            Option(
                "num_beam_groups",
                WHOLE,
                1,
                interval="[1, inf)",
                group=GROUP,
                help="Diverse beam search: divide the beams into this many groups.",
            ),
            Option(
                "diversity_penalty",
                NUMBER,
                off=(0,),
                group=GROUP,
                help="Diverse beam search: the penalty for tokens that earlier groups chose at the same step.",
            ),
            # No row is ever padded; only these beams notice it, as in transformers.
            Option("pad_token_id", ID, help="The id that pads ended texts; only diverse beams depend on it."),
        ),
        run=group_beam_search,
        asked=("num_beam_groups", "diversity_penalty"),
        unread=("diversity_penalty",),
        reads=("num_beams", "length_penalty", "early_stopping"),
        check=check,
        documentation=(
            Documentation(
                "diverse beams",
                what=(
                    "Beams are divided into groups, and each group is penalised for tokens that earlier groups "
                    "chose at this step."
                ),
                formula=r"\log p_i - \lambda\,c_i",
                source="Vijayakumar et al. 2018",
                when="For several answers that should differ.",
                example={"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0},
            ),
        ),
        trials={"diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}},
    ),
)

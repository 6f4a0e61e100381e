"""The pool of ended beams in transformers 4, for the searches that version 5 moved out of its core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ..base.interface import Array, FinishReason
from ..base.ranking import highest
from ..base.readable import Readable
from ..base.task import Task
from .beam_common import BEATEN, FULL, NOTHING_LEFT, OUT_OF_TIME, Beam, Scored, possible

Early = bool | Literal["never"]


class Pool(Readable):
    """The `size` best beams that ended, scored by sum / length ** length_penalty (``BeamHypotheses``).

    Unlike the pool of `beam`, it goes on taking better beams as long as the search runs, and the search ends when
    the best candidate, whether it ends or not, can't beat the worst in here.
    """

    def __init__(self, size: int, room: int, length_penalty: float, early_stopping: Early, task: Task) -> None:
        self.size, self.room, self.task = size, room, task
        self.penalty, self.early_stopping = length_penalty, early_stopping
        self.beams: list[Beam] = []

    def add(self, beam: Beam) -> None:
        """Add a beam whose score is a plain sum; if there are too many, drop the worst."""
        if not possible(beam, self.task):
            return
        score = float(beam.score) / len(beam.ids) ** self.penalty
        if len(self.beams) < self.size or score > self.worst:
            self.beams.append(replace(beam, score=score))
            if len(self.beams) > self.size:
                self.beams.remove(min(self.beams, key=lambda one: one.score))

    @property
    def worst(self) -> float:
        """The lowest score in the pool."""
        return min(float(beam.score) for beam in self.beams)

    def settled(self, best: float, length: int) -> bool:
        """Tell whether no beam can enter any more, given the highest sum `best` among the candidates of this length."""
        if len(self.beams) < self.size:
            return False
        if self.early_stopping is True:
            return True
        hopeful = self.room if self.early_stopping == "never" and self.penalty > 0 else length
        return self.worst >= best / hopeful**self.penalty

    def stops(self, grown: Sequence[Beam], running: Sequence[Beam], late: bool) -> str | None:
        """Return why a search stops after a step, given its candidates and growing beams; None if it goes on."""
        length = len(grown[0].ids)
        if self.settled(float(grown[0].score), length):
            return FULL if self.early_stopping is True else BEATEN
        if length == self.room or late or not any(possible(beam, self.task) for beam in running):
            return OUT_OF_TIME if late and length < self.room else NOTHING_LEFT
        return None


def ranked(beams: Sequence[Beam]) -> list[Beam]:
    """Return beams best first; of equal ones the latest first, as transformers pops them off a sorted list."""
    return sorted(beams, key=lambda beam: beam.score)[::-1]


def split(
    candidates: Sequence[Beam], parents: Sequence[int], size: int, add: Callable[[Beam], None]
) -> tuple[list[Beam], list[int]]:
    """Return the first `size` candidates that go on, with their parents; those that end among the first `size` go to
    `add`.

    ``BeamSearchScorer.process``. Candidates come best first; one that ends has a ``finish_reason``.
    """
    running, places = [], []
    for rank, (beam, parent) in enumerate(zip(candidates, parents, strict=True)):
        if beam.finish_reason is None:
            running.append(beam)
            places.append(parent)
        elif rank < size:
            add(beam)
        if len(running) == size:
            break
    return running, places


def candidates(
    running: Sequence[Beam], scored: Scored, own: Array, k: int, ends: Callable[[tuple[int, ...]], bool]
) -> tuple[list[Beam], list[int]]:
    """Return the k best continuations of some beams and their parents, best first, from their (beams, V) sums.

    `own` are the model's log-probabilities, (beams, V); `ends` tells of new ids whether they end a text.
    """
    V, flat = own.shape[-1], scored.totals.ravel()
    grown, parents = [], []
    for place in highest(flat, k).tolist():
        parent, token = divmod(place, V)
        old = running[parent]
        reason: FinishReason | None = "stop" if ends((*old.ids, token)) else None
        grown.append(old.then(token, float(own[parent, token]), flat[place], reason, scored.details[parent]))
        parents.append(parent)
    return grown, parents

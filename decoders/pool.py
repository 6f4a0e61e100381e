"""The beams that have ended, as transformers 4 keeps them for the searches that version 5 moved out of its core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .beam import Beam, possible
from .options import Options
from .ranking import highest


class Pool:
    """The `size` best beams that ended, scored by sum / length ** length_penalty (``BeamHypotheses``).

    Unlike the pool of `beam`, it goes on taking better beams as long as the search runs, and the search ends when
    the best candidate, whether it ends or not, can't beat the worst in here.
    """

    def __init__(self, size: int, space: int, options: Options) -> None:
        self.size, self.space = size, space
        self.penalty = 1.0 if options.length_penalty is None else options.length_penalty
        self.early_stopping = options.early_stopping or False
        self.options = options
        self.beams: list[Beam] = []

    def add(self, beam: Beam) -> None:
        """Take a beam in, its score being a plain sum; where there are too many, the worst leaves."""
        if not possible(beam, self.options):
            return
        score = float(beam.score) / len(beam.ids) ** self.penalty
        if len(self.beams) < self.size or score > self.worst:
            self.beams.append(replace(beam, score=score))
            if len(self.beams) > self.size:
                self.beams.remove(min(self.beams, key=lambda one: one.score))

    @property
    def worst(self) -> float:
        """The lowest score in here."""
        return min(float(beam.score) for beam in self.beams)

    def settled(self, best: float, length: int) -> bool:
        """Whether no beam can get in any more, `best` being the highest sum among the candidates of this length."""
        if len(self.beams) < self.size:
            return False
        if self.early_stopping is True:
            return True
        hopeful = self.space if self.early_stopping == "never" and self.penalty > 0 else length
        return self.worst >= best / hopeful**self.penalty


def ranked(beams: Sequence[Beam]) -> list[Beam]:
    """Best first; of equals the latest first, as transformers pops them off a sorted list."""
    return sorted(beams, key=lambda beam: beam.score)[::-1]


def split(
    candidates: Sequence[Beam], parents: Sequence[int], size: int, add: Callable[[Beam], None]
) -> tuple[list[Beam], list[int]]:
    """The first `size` candidates that go on, with their parents; what ends among the first `size` goes to `add`.

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
    running: Sequence[Beam], totals: np.ndarray, own: np.ndarray, k: int, ends: Callable[[tuple[int, ...]], bool]
) -> tuple[list[Beam], list[int]]:
    """The k best continuations of some beams and their parents, best first, from (beams, V) `totals`.

    `own` are the model's log-probabilities, (beams, V); `ends` tells of new ids whether they end a text.
    """
    V, flat = totals.shape[-1], totals.ravel()
    grown, parents = [], []
    for place in highest(flat, k).tolist():
        parent, token = divmod(place, V)
        old = running[parent]
        ids, logprobs = (*old.ids, token), (*old.logprobs, float(own[parent, token]))
        grown.append(Beam(ids, logprobs, flat[place], "stop" if ends(ids) else None))
        parents.append(parent)
    return grown, parents

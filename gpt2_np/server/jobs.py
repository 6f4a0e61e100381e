"""A job (one or several texts of one prompt) for the scheduler, and the events that report its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from decoders import Completion, Options, Token
from decoders.base.interface import Stopping, log_softmax
from decoders.base.ranking import highest
from decoders.base.task import Task
from decoders.generate import prepared

from ..display import Readable
from ..model.arrays import Array
from .errors import Refused

Top = tuple[tuple[int, float], ...]


class Read(NamedTuple):
    """Event: the model's log-probability of each of the prompt's ids but the first, and the likeliest alternatives."""

    logprobs: list[float]
    top: list[Top]


class Wrote(NamedTuple):
    """Event: newly chosen ids."""

    tokens: list[Token]


class Done(NamedTuple):
    """Event: the job has ended, with its texts or its error."""

    completions: list[Completion]
    error: Refused | None = None


Event = Read | Wrote | Done


@dataclass(eq=False, repr=False)
class Job(Readable):
    """The texts to write after one prompt's ids, and the function that receives the events.

    ``deliver`` receives the events, in the scheduler's threads: `Read` where the prompt's log-probabilities with so
    many alternatives are wanted, `Wrote` where it `streams`, and `Done` once, at the end. Nothing is written where
    ``writes`` is off: the prompt is only read. One that ``heals`` has its prompt's last token regrown first.
    """

    ids: list[int]
    options: Options
    stopping: Sequence[Stopping]
    context: int
    deliver: Callable[[Event], None]
    seconds: float = 600.0
    prompt_logprobs: int | None = None
    streams: bool = False
    writes: bool = True
    heals: bool = False
    trace: list[Any] | None = None
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        """The number of texts that grow at once."""
        o = self.options
        return max(o.num_beams, o.best_of or o.num_return_sequences) if self.writes else 1

    @property
    def positions(self) -> int:
        """The number of tokens that all its texts may have together."""
        room = self.options.most(len(self.ids)) if self.writes else 0
        return self.rows * min(len(self.ids) + room, self.context + 1)

    @property
    def shares(self) -> bool:
        """Whether its texts grow token by token, so that they can share a batch with other jobs."""
        o = self.options
        alone = o.guidance_scale is not None or self.heals  # these run the model themselves
        return o.search.name in ("token by token", "best of n") and o.writer.name == "token by token" and not alone

    def task(self, stepper: Any) -> Task:
        """Build the decoders' task; `stepper` is None if the scheduler runs the model."""
        return prepared(stepper, [self.ids], self.options, self.context, self.stopping, self.trace)

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.arrived + self.seconds


@dataclass
class PromptRead:
    """The log-probabilities of a prompt while it is read, block by block."""

    ids: Sequence[int]
    alternatives: int
    logprobs: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)

    def add(self, start: int, logits: Array) -> None:
        """Add the (T, V) logits after the ids from `start` on; those after the last id aren't used."""
        following = self.ids[start + 1 : start + 1 + len(logits)]
        for row, token in zip(log_softmax(logits[: len(following)]), following, strict=True):
            best = highest(row, self.alternatives).tolist() if self.alternatives else ()
            self.logprobs.append(float(row[token]))
            self.top.append(tuple((one, float(row[one])) for one in best))


def unsound(logits: Array) -> list[int]:
    """Return the rows that hold values that aren't finite."""
    return np.flatnonzero(~np.isfinite(logits).all(axis=-1)).tolist()

"""The task that a search receives: model, prompts with their room and processors, stopping conditions, random
stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .interface import Array, Assistance, FinishReason, LogitsProcessor, Stepper, Stopping, Token
from .ranking import highest

if TYPE_CHECKING:
    from .watching import Change, Watch

# (scores of the growing rows, their numbers, how many rows there are in all) → one id each.
Sampler = Callable[[Array, Sequence[int], int], Array]


class Draws(Protocol):
    """One (rows, V) tensor of exponential draws, read at flat indices."""

    def exponential(self, wanted: Array) -> Array:
        """Return the float32 exponentials at these places."""
        ...

    def least(self, wanted: Array) -> Array:
        """Return lower bounds of the exponentials at these places (up to float32 rounding): cheap to compute, and close
        for small ones.
        """
        ...


class Stream(Protocol):
    """A source of exponential draws, one (rows, V) tensor per call."""

    def draw(self, rows: int, V: int) -> Draws:
        """Draw the next (rows, V) tensor, all of which is consumed."""
        ...

    def exponential(self, rows: int, V: int, wanted: Array) -> Array:
        """Return the float32 exponentials at the flat indices `wanted` of the next (rows, V) tensor."""
        ...

    def uniform(self, n: int) -> Array:
        """``torch.rand(n)``: (n,) float32 in [0, 1)."""
        ...


class Named(NamedTuple):
    """A processor with the method that asked for it: whether it ``forces`` tokens, ``forbids`` some, ``has_past``.

    ``given`` names the options that were given for it.
    """

    option: str
    processor: LogitsProcessor
    forces: bool = False
    forbids: bool = False
    has_past: bool = False
    given: str = ""


class TokenDetails(NamedTuple):
    """Further facts about an id: its alternatives, the scores that it was chosen from, the row that it continued."""

    top: tuple[tuple[int, float], ...]
    scores: Array | None
    row: int | None


@dataclass(frozen=True)
class Prompt:
    """One prompt: its ids, how many ids may follow them, and the function that builds its chain of processors.

    ``chain(taken)`` builds a new chain; diverse beam search passes the list of choices that earlier groups have made.
    """

    ids: Sequence[int]
    room: int
    chain: Callable[[Sequence[int]], list[Named]]

    @property
    def longest(self) -> int:
        """The greatest length of the text, including the prompt."""
        return len(self.ids) + self.room


@dataclass(frozen=True)
class Task:
    """Everything that a search needs: the model, the prompts, and when a text ends.

    ``copies`` texts of each prompt are wanted. ``deadline`` is on the monotonic clock. ``constrained`` says that an
    automaton may leave fewer texts than there are beams. ``choose`` chooses one token per row; ``stream`` is the random
    stream if the task samples from one. ``write`` yields the tokens of a task one by one. ``trace`` records what
    happens, if it is a list.
    """

    stepper: Stepper
    prompts: Sequence[Prompt]
    copies: int
    eos: tuple[int, ...]
    stopping: Sequence[Stopping]
    deadline: float
    constrained: bool
    choose: Sampler
    stream: Stream | None
    check_vocabulary: Callable[[int], None]
    write: Callable[[Task], Iterator[Token]]
    top_logprobs: int = 0
    output_scores: bool = False
    trace: list[Any] | None = None

    def late(self) -> bool:
        """Tell whether the deadline has passed."""
        return time.monotonic() > self.deadline

    def ends(self, prompt: Prompt, new: Sequence[int]) -> bool:
        """Tell whether a text ends with its newest id: an end-of-text, or a `stopping` callable says so."""
        return new[-1] in self.eos or any(stop(prompt.ids, new) for stop in self.stopping)

    def finish_reason(self, prompt: Prompt, new: Sequence[int], late: bool) -> FinishReason | None:
        """Return why a text ends with its newest id: "stop" if it `ends`, "length" if its room or the time is used
        up.
        """
        if self.ends(prompt, new):
            return "stop"
        return "length" if late or len(new) == prompt.room else None

    def feed_prompts(self, copies: int = 1) -> Array:
        """Feed the prompts; return (prompts × copies, V) logits, a prompt's copies side by side. The vocabulary is
        checked.
        """
        logits = self.stepper.feed([prompt.ids for prompt in self.prompts])
        self.check_vocabulary(logits.shape[-1])
        if copies > 1:
            logits = np.repeat(logits, copies, axis=0)
            self.stepper.reorder([number for number in range(len(self.prompts)) for _ in range(copies)])
        return logits

    def watch(self, rows: int) -> tuple[list[list[Change]], Watch | None]:
        """Return a list of changes for each of a number of rows, and the function that fills them (None without a
        trace).
        """
        changes: list[list[Change]] = [[] for _ in range(rows)]
        if self.trace is None:
            return changes, None
        from .watching import watching

        return changes, watching(changes)

    def token(
        self,
        row: int,
        length: int,
        token: int,
        logits: Array,
        logprobs: Array,
        scores: Array,
        changes: Sequence[Change],
        reason: FinishReason | None,
        assistance: Assistance | None = None,
    ) -> Token:
        """Return a chosen id as the caller receives it, and record it in the trace.

        It is the `length`-th new id of its row; the model's (V,) logits and log-probabilities, the scores that it was
        chosen by and the processors' changes are its row's.
        """
        if self.trace is not None:
            from .watching import token_step

            logprob = float(logprobs[token])
            self.trace.append(token_step(row, length, token, logprob, logits, scores, changes, reason))
        told = self.details(logprobs, scores)
        return Token(row, token, float(logprobs[token]), reason, told.top, told.scores, assistance)

    def details(self, logprobs: Array, scores: Array, row: int | None = None) -> TokenDetails:
        """Return the requested further facts about an id, from its row's (V,) log-probabilities and the scores that it
        was chosen from; `row` is the beam that it continued.
        """
        top = highest(logprobs, self.top_logprobs).tolist() if self.top_logprobs else ()
        kept = scores.copy() if self.output_scores else None
        return TokenDetails(tuple((one, float(logprobs[one])) for one in top), kept, row)

"""The texts of one job as they grow in a batch."""

from __future__ import annotations

from dataclasses import replace

from decoders import Completion, Token
from decoders.searches.best_of import best_first
from decoders.searches.collected import put_together
from decoders.searches.token_by_token import Rows

from ..model.arrays import Array
from ..model.overflow import message
from .jobs import Job, PromptRead, Read, Wrote, unsound


class Growing:
    """A job in progress: how much of its prompt is read, its rows, and where in the batch each of them is."""

    def __init__(self, job: Job) -> None:
        self.job, self.read = job, 0
        task = replace(job.task(None), copies=job.rows)
        self.task, self.rows = task, Rows(task)
        self.places: dict[int, int] = {}
        self.tokens: list[Token] = []
        asked = job.prompt_logprobs
        self.prompt = None if asked is None else PromptRead(job.ids, asked)

    @property
    def growing(self) -> bool:
        """Whether there is more to write."""
        return self.job.writes and bool(self.rows.growing)

    def begin(self, logits: Array) -> None:
        """Choose the first token of each text from the logits after the prompt: (T, V), of which the last count."""
        if self.prompt is not None:
            self.job.deliver(Read(self.prompt.logprobs, self.prompt.top))
        if self.job.writes:
            last = logits[-1:]
            self.task.check_vocabulary(last.shape[-1])
            self.take(last if self.job.rows == 1 else last.repeat(self.job.rows, axis=0))

    def take(self, logits: Array) -> None:
        """Choose the next token of each text that grows, from its (V,) logits. ``ValueError`` where none can be."""
        self.check(logits)
        step = self.rows.step(logits)
        self.tokens += step.tokens
        if self.job.streams:
            self.job.deliver(Wrote(step.tokens))

    def check(self, logits: Array) -> None:
        """``ValueError`` where logits are no numbers: the model's activations overflow for this text."""
        if unsound(logits):
            raise ValueError(message(None, logits.dtype))

    def completions(self) -> list[Completion]:
        """What was written: of ``best_of`` texts the best."""
        if not self.job.writes:
            return []
        written = put_together(self.tokens, self.job.rows)
        if self.job.options.best_of is None:
            return written
        return best_first(written)[: self.job.options.num_return_sequences]

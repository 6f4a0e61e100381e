"""The state of one job's texts while they grow in a batch."""

from __future__ import annotations

from dataclasses import replace

from decoders import Completion, Token
from decoders.searches.best_of import best_first
from decoders.searches.collected import put_together
from decoders.searches.token_by_token import Rows

from ..display import Readable
from ..model.arrays import Array
from ..model.overflow import message
from .jobs import Job, PromptRead, Read, Wrote, unsound


class Growing(Readable):
    """A running job: how much of its prompt was read, its rows, and the place of each in the batch."""

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
        """Choose the first token of each text from the logits after the prompt: (T, V), of which the last are used."""
        if self.prompt is not None:
            self.job.deliver(Read(self.prompt.logprobs, self.prompt.top))
        if self.job.writes:
            last = logits[-1:]
            self.task.check_vocabulary(last.shape[-1])
            self.take(last if self.job.rows == 1 else last.repeat(self.job.rows, axis=0))

    def take(self, logits: Array) -> None:
        """Choose the next token of each growing text from its (V,) logits. ``ValueError`` if no token is possible."""
        self.check(logits)
        step = self.rows.step(logits)
        self.tokens += step.tokens
        if self.job.streams:
            self.job.deliver(Wrote(step.tokens))

    def check(self, logits: Array) -> None:
        """Raise ``ValueError`` if logits are not finite: the model's activations overflow for this text."""
        if unsound(logits):
            raise ValueError(message(None, logits.dtype))

    def completions(self) -> list[Completion]:
        """Return the texts; the best ones of ``best_of``."""
        if not self.job.writes:
            return []
        written = put_together(self.tokens, self.job.rows)
        if self.job.options.best_of is None:
            return written
        return best_first(written)[: self.job.options.num_return_sequences]

"""Jobs that can't share a batch: searches, and methods that run the model themselves; one after the other, in a
thread.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from threading import Condition, Thread

import decoders
from decoders import Completion, Token
from decoders.searches.collected import put_together

from ..display import Readable
from ..session.slots import BLOCK
from ..text import healing
from ..text.gpt2 import GPT2
from ..text.requests import capacity
from .errors import closing, late, refusal
from .jobs import Done, Job, PromptRead, Read, Wrote
from .observing import Observer
from .turns import Turns, in_turns


class Cancelled(Exception):
    """Raised when nobody waits for this job any more."""


class Beside(Readable):
    """A thread that works on one job at a time, and takes turns with the batch at each pass of the model."""

    def __init__(self, model: GPT2, turns: Turns, observer: Observer) -> None:
        self.model, self.observer = in_turns(model, turns, self._check), observer
        self.waiting: deque[Job] = deque()
        self.job: Job | None = None
        self.ends: float | None = None
        self.changed = Condition()
        self.thread = Thread(target=self._run, name="gpt2_np searches", daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> None:
        """Accept one more job."""
        with self.changed:
            self.waiting.append(job)
            self.changed.notify()

    def close(self, ends: float) -> None:
        """Let jobs run until then, and accept no more."""
        with self.changed:
            self.ends = ends
            self.changed.notify()

    def _check(self) -> None:
        """Called before each pass of the model: end jobs that are cancelled or late."""
        job = self.job
        if job is None:
            return
        if job.cancelled:
            raise Cancelled
        if job.late:
            raise late(job.seconds)
        if self.ends is not None and time.monotonic() > self.ends:
            raise closing()

    def _run(self) -> None:
        while True:
            with self.changed:
                while not (self.waiting or self.ends is not None):
                    self.changed.wait()
                if not self.waiting:
                    return
                self.job = self.waiting.popleft()
            job, written, error = self.job, list[Completion](), None
            try:
                self._check()
                written = self._work(job)
            except Cancelled:
                error = closing()
            except Exception as fault:
                error = refusal(fault)
                if error.status == 500:
                    traceback.print_exception(fault, file=sys.stderr)
            reason = "cancelled" if job.cancelled else "done" if error is None else error.code or error.kind
            self.observer.ended(reason)
            self.job = None
            job.deliver(Done([] if error else written, error))

    def _work(self, job: Job) -> list[Completion]:
        if job.heals:
            vocabulary = self.model.config.vocab_size
            job.ids = healing.healed(job.ids, self.model.tokenizer, self.model.start, vocabulary)
        if job.prompt_logprobs is not None:
            self._read(job, job.prompt_logprobs)
        if not job.writes:
            return []
        stepper = self.model.start(capacity=capacity([job.ids], job.options, job.context))
        if not job.options.streams:
            written = decoders.generate(stepper, [job.ids], job.options, context=job.context, stopping=job.stopping)
            self.observer.first(time.monotonic() - job.arrived)
            self.observer.wrote(sum(len(one.ids) for one in written))
            return written
        tokens: list[Token] = []
        for token in decoders.stream(stepper, [job.ids], job.options, context=job.context, stopping=job.stopping):
            if not tokens:
                self.observer.first(time.monotonic() - job.arrived)
            tokens.append(token)
            self.observer.wrote(1)
            if job.streams:
                job.deliver(Wrote([token]))
        return put_together(tokens, 1)

    def _read(self, job: Job, alternatives: int) -> None:
        """The log-probabilities of a prompt."""
        prompt, session = PromptRead(job.ids, alternatives), self.model.start(capacity=len(job.ids))
        for start in range(0, len(job.ids), BLOCK):
            prompt.add(start, session.feed_all([job.ids[start : start + BLOCK]])[0])
        self.observer.read(len(job.ids))
        job.deliver(Read(prompt.logprobs, prompt.top))

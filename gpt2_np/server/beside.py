"""The work that can't share a batch: searches, methods that run the model themselves, and models whose bits depend on
the batch.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from threading import Condition, Thread
from typing import Any

import decoders
from decoders import Completion, Token
from decoders.searches.collected import put_together

from ..display import Readable
from ..session.slots import BLOCK
from ..text import distinct, healing
from ..text.gpt2 import GPT2
from ..text.requests import capacity
from .errors import closing, late, refusal
from .jobs import Done, Job, PromptRead, Read, Wrote
from .limits import Limits
from .observing import Observer
from .turns import Together, Turns, in_turns


class Cancelled(Exception):
    """Raised when nobody waits for this job any more."""


class Beside(Readable):
    """Threads that work on one job each, and take turns with the batch at each pass of the model.

    Between two passes of the batch stands one of theirs at most, however many jobs there are, and none that reads more
    than a block of a prompt. A job begins when a thread is free and there is room for its tokens, in the order in which
    they came.
    """

    def __init__(self, model: GPT2, turns: Turns, limits: Limits, observer: Observer) -> None:
        self.model, self.limits, self.observer = model, limits, observer
        self.turns = Together(turns)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.ends: float | None = None
        self.changed = Condition()
        self.threads = [
            Thread(target=self._run, name=f"gpt2_np search {number}", daemon=True) for number in range(limits.searches)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether its threads run."""
        return any(thread.is_alive() for thread in self.threads)

    def submit(self, job: Job) -> None:
        """Accept one more job."""
        with self.changed:
            self.waiting.append(job)
            self.changed.notify()

    def close(self, ends: float) -> None:
        """Let jobs run until then, and accept no more."""
        with self.changed:
            self.ends = ends
            self.changed.notify_all()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its threads to end, at most the given seconds for each."""
        for thread in self.threads:
            thread.join(timeout)

    def check(self, job: Job) -> None:
        """Called before each pass of the model: ends what nobody waits for, and what is late, waiting or at work."""
        for other in list(self.waiting):
            error = self._over(other)
            if error is not None and self._withdrawn(other):
                self._end(other, error)
        error = self._over(job)
        if error is not None:
            raise error

    def _over(self, job: Job) -> Exception | None:
        """Why a job is at its end, if it is."""
        if job.cancelled:
            return Cancelled()
        if job.late:
            return late(job.seconds)
        return closing() if self.ends is not None and time.monotonic() > self.ends else None

    def _withdrawn(self, job: Job) -> bool:
        """Take a job out of those that wait; whether it was still there."""
        with self.changed:
            if job not in self.waiting:
                return False
            self.waiting.remove(job)
            return True

    def _next(self) -> Job | None:
        """The next job, as soon as there is one, and room for it; None where none will come any more."""
        with self.changed:
            while not (self._has_room() or (self.ends is not None and not self.waiting)):
                self.changed.wait()
            if not self.waiting:
                return None
            job = self.waiting.popleft()
            self.running.append(job)
            return job

    def _has_room(self) -> bool:
        """Tell whether the first one that waits may begin; one that is alone always may."""
        if not self.waiting:
            return False
        taken = sum(job.positions for job in self.running)
        return not self.running or taken + self.waiting[0].positions <= self.limits.tokens

    def _run(self) -> None:
        while (job := self._next()) is not None:
            written, error = list[Completion](), None
            try:
                self.check(job)
                written = self._work(job)
            except Exception as fault:
                error = fault
            with self.changed:
                self.running.remove(job)
                self.changed.notify_all()
            self._end(job, error, written)

    def _end(self, job: Job, error: Exception | None, written: Sequence[Completion] = ()) -> None:
        """Tell of a job's end."""
        told = None if error is None else closing() if isinstance(error, Cancelled) else refusal(error)
        if error is not None and told is not None and told.status == 500:
            traceback.print_exception(error, file=sys.stderr)
        self.observer.ended("cancelled" if job.cancelled else "done" if told is None else told.code or told.kind)
        job.deliver(Done([] if told else list(written), told))

    def _work(self, job: Job) -> list[Completion]:
        model = in_turns(self.model, self.turns, lambda: self.check(job), in_blocks=True)
        if job.heals:
            vocabulary = model.config.vocab_size
            job.ids = healing.healed(job.ids, self.model.tokenizer, model.start, vocabulary)
        if job.prompt_logprobs is not None:
            self._read(model, job, job.prompt_logprobs)
        if not job.writes:
            return []
        room = capacity([job.ids], job.options, job.context)
        asked: dict[str, Any] = {"context": job.context, "stopping": job.stopping, "trace": job.trace}
        if not job.options.search.streams:
            written = distinct.generate(lambda: model.start(capacity=room), [job.ids], job.options, **asked)
            self.observer.first(time.monotonic() - job.arrived)
            self.observer.wrote(sum(len(one.ids) for one in written))
            return written
        tokens: list[Token] = []
        for token in decoders.stream(model.start(capacity=room), [job.ids], job.options, **asked):
            if not tokens:
                self.observer.first(time.monotonic() - job.arrived)
            tokens.append(token)
            self.observer.wrote(1)
            if job.streams:
                job.deliver(Wrote([token]))
        return put_together(tokens, job.options.num_return_sequences)

    def _read(self, model: GPT2, job: Job, alternatives: int) -> None:
        """The log-probabilities of a prompt."""
        prompt, session = PromptRead(job.ids, alternatives), model.start(capacity=len(job.ids))
        for start in range(0, len(job.ids), BLOCK):
            prompt.add(start, session.feed_all([job.ids[start : start + BLOCK]])[0])
        self.observer.read(len(job.ids))
        job.deliver(Read(prompt.logprobs, prompt.top))

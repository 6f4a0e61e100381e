"""The scheduler of continuous batching: texts join and leave between the model's steps, and prompts are read in
between.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from threading import Condition, Thread

from ..display import Readable
from ..model.arrays import Array
from ..session.slots import BLOCK, Slots
from ..text.gpt2 import GPT2
from .beside import Beside
from .errors import busy, closing, late, refusal
from .growing import Growing
from .jobs import Done, Job
from .limits import Limits
from .observing import Observer
from .turns import Turns, in_turns

READ = 2 * BLOCK  # positions of prompts that are read between two steps, where several are waiting to be


class Scheduler(Readable):
    """Writes the texts of jobs. One thread runs the model for all texts that grow token by token.

    Between two steps it lets go of jobs that are cancelled or late, takes on those that there is room for, in the order
    in which they came, and reads prompts, a block at a time. A row's bits don't depend on the rows beside it, so
    whoever else is served changes nothing but the time that it takes. Searches run in threads of their own
    (`Beside`), and take turns with this one at each pass of the model; so does everything where the model's bits depend
    on the batch (float64, the numpy backend, edits).
    """

    def __init__(self, model: GPT2, limits: Limits | None = None, observer: Observer | None = None) -> None:
        self.limits, self.observer = limits or Limits(), observer or Observer()
        turns = Turns()
        self.model = in_turns(model, turns)
        self.slots = Slots(self.model, self.limits.rows, model.config.n_positions)
        self.waiting: deque[Job] = deque()
        self.running: list[Growing] = []
        self.reading: Growing | None = None
        self.owners: list[tuple[Growing, int]] = []  # of each row of the slots: whose it is, and its number there
        self.stepped: float | None = None  # when the last step ended, while texts are in progress
        self.changed = Condition()
        self.ends: float | None = None  # when everything must have come to its end, once it is being closed
        self.beside = Beside(model, turns, self.limits, self.observer)
        self.invariant = model.batch_invariant
        self.thread = Thread(target=self._run, name="gpt2_np inference", daemon=True)
        self.thread.start()

    # ---- from any thread -------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[Job]) -> None:
        """Accept all of these jobs, or none: `Refused` if too many are waiting, or the server is shutting down."""
        with self.changed:
            if self.ends is not None:
                raise closing()
            waiting = sum(not job.cancelled for queue in (self.waiting, self.beside.waiting) for job in list(queue))
            if waiting + len(jobs) > self.limits.queue:
                raise busy(waiting)
            for job in jobs:
                self.observer.submitted()
                if job.shares and self.invariant:
                    self.waiting.append(job)
                else:
                    self.beside.submit(job)
            self.changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancel these jobs: their room is free within a step."""
        for job in jobs:
            job.cancelled = True
        with self.changed:
            self.changed.notify()

    def close(self, grace: float = 0.0) -> None:
        """Take on nothing more; what is in progress, or waiting, has the given seconds to end."""
        with self.changed:
            self.ends = time.monotonic() + grace
            self.changed.notify()
        self.beside.close(self.ends)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the threads to end, which they do once the scheduler is closed."""
        self.thread.join(timeout)
        self.beside.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether it takes on jobs."""
        return self.ends is None and self.thread.is_alive() and self.beside.alive

    # ---- the thread that runs the model ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self.changed:
                while not (self.waiting or self.reading or self.running or self.ends is not None):
                    self.changed.wait()
                self._sweep()
                if self.ends is not None and not (self.waiting or self.reading or self.running):
                    return
            try:
                self._step()
                self._read()
            except Exception as error:  # a fault of ours: what was in progress is lost, what comes next is not
                traceback.print_exc(file=sys.stderr)
                self._start_again(error)
            self._tell()

    def _start_again(self, error: Exception) -> None:
        """Report an error to every running job, and start with new rows."""
        lost = [*self.running, *([] if self.reading is None else [self.reading])]
        self.running, self.reading, self.owners = [], None, []
        self.slots = Slots(self.model, self.limits.rows, self.model.config.n_positions)
        for one in lost:
            self._end(one.job, error)

    def _sweep(self) -> None:
        """Drop jobs that are cancelled or late, or all of them if the time for closing is over."""
        over = self.ends is not None and time.monotonic() > self.ends
        for job in [job for job in self.waiting if over or job.cancelled or job.late]:
            self.waiting.remove(job)
            self._end(job, self._why(job, over))
        for one in [one for one in self.running if over or one.job.cancelled or one.job.late]:
            self._leave(one, self._why(one.job, over))
        if self.reading is not None and (over or self.reading.job.cancelled or self.reading.job.late):
            self._stop_reading(self._why(self.reading.job, over))

    def _why(self, job: Job, over: bool) -> Exception:
        return closing() if over else late(job.seconds)

    def _step(self) -> None:
        """Run one pass of the model for all running texts, and let each choose its token."""
        if not self.owners:
            self.stepped = None
            return
        logits = self.slots.step([owner.rows.texts[row][-1] for owner, row in self.owners])
        places = [[one.places[row] for row in one.rows.growing] for one in self.running]  # which move as rows leave
        for one, mine in zip(list(self.running), places, strict=True):
            before = list(one.rows.growing)
            try:
                one.take(logits[mine])
            except ValueError as error:
                self._leave(one, error)
                continue
            self.observer.wrote(len(before))
            if not one.rows.growing:
                self._leave(one)
                continue
            for row in set(before) - set(one.rows.growing):
                self._free(one, row)
        now = time.monotonic()
        if self.stepped is not None:
            self.observer.between(now - self.stepped)
        self.stepped = now

    def _read(self) -> None:
        """Read blocks of prompts, and let those that are read whole begin to write."""
        budget = READ
        while budget > 0:
            if self.reading is None and not self._admit():
                return
            one = self.reading
            assert one is not None
            try:
                ids, start = one.job.ids[one.read : one.read + BLOCK], one.read
                every = one.prompt is not None
                logits = self.slots.read(ids, last_only=not every)
                budget -= len(ids)
                one.read += len(ids)
                self.observer.read(len(ids))
                one.check(logits)
                if one.prompt is not None:
                    one.prompt.add(start, logits)
                if one.read == len(one.job.ids):
                    self._begin(one, logits)
            except ValueError as error:
                self._stop_reading(error)

    def _begin(self, one: Growing, logits: Array) -> None:
        """A prompt is read: its texts join the others, if they don't end with their first token."""
        self.reading = None
        try:
            one.begin(logits)
        except ValueError as error:
            self._end(one.job, error)
            return
        if one.job.writes:
            self.observer.first(time.monotonic() - one.job.arrived)
            self.observer.wrote(one.job.rows)
        if not one.growing:
            self._end(one.job, None, one)
            return
        for row in one.rows.growing:
            one.places[row] = self.slots.join()
            self.owners.append((one, row))
        self.running.append(one)

    def _admit(self) -> bool:
        """Take the next job that waits, where there is room for it; its prompt is what is read next."""
        with self.changed:
            if not self.waiting:
                return False
            job = self.waiting[0]
            rows = sum(len(one.rows.growing) for one in self.running)
            tokens = sum(one.job.positions for one in self.running)
            if rows + job.rows > self.limits.rows or tokens + job.positions > self.limits.tokens:
                return False
            self.waiting.popleft()
        try:
            self.reading = Growing(job)
        except Exception as error:
            self._end(job, error)
            return self._admit()
        self.slots.begin()
        return True

    # ---- who leaves ------------------------------------------------------------------------------------------------

    def _free(self, one: Growing, row: int) -> None:
        """Remove a text that has ended: the last row of the slots takes its place."""
        place = one.places.pop(row)
        self.slots.leave(place)
        owner, moved = last = self.owners.pop()
        if place < len(self.owners):
            self.owners[place] = last
            owner.places[moved] = place

    def _leave(self, one: Growing, error: Exception | None = None) -> None:
        """A job is at its end: its rows are free."""
        self.running.remove(one)
        for row in list(one.places):
            if error is not None:
                self.slots.wipe(one.places[row])
            self._free(one, row)
        self._end(one.job, error, one)

    def _stop_reading(self, error: Exception) -> None:
        one, self.reading = self.reading, None
        if one is not None:
            self.slots.wipe()
            self._end(one.job, error)

    def _end(self, job: Job, error: Exception | None, one: Growing | None = None) -> None:
        """Report a job's end."""
        told = None if error is None else refusal(error)
        self.observer.ended("cancelled" if job.cancelled else "done" if told is None else told.code or told.kind)
        job.deliver(Done([] if one is None or told else one.completions(), told))

    def _tell(self) -> None:
        rows = len(self.owners)
        tokens = sum(one.job.positions for one in self.running)
        self.observer.standing(len(self.waiting) + len(self.beside.waiting), rows, tokens)

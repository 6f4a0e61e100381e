"""What the tests of continuous batching share: requests without HTTP, and schedulers that can be made slow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpt2_np import GPT2
from gpt2_np.server.jobs import Done, Event, Job
from gpt2_np.server.limits import Limits
from gpt2_np.server.scheduler import Scheduler


class Asked:
    """A job and what was told of it."""

    def __init__(self, model: GPT2, ids: list[int], *, stop: Any = (), seconds: float = 600, **names: Any) -> None:
        self.ids, self.events, self.ended = ids, list[Event](), threading.Event()
        self.times: list[float] = []
        more = {name: names.pop(name) for name in ("prompt_logprobs", "streams", "writes") if name in names}
        self.names, self.stop = names, stop
        _, options = model.options(names, len(ids))
        self.job = Job(ids, options, stop, model.config.n_positions, self.deliver, seconds, **more)

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(time.monotonic())
        if isinstance(event, Done):
            self.ended.set()

    def done(self) -> Done:
        assert self.ended.wait(200), "a job must come to its end"
        assert isinstance(self.events[-1], Done)
        return self.events[-1]

    def texts(self) -> list[tuple[list[int], list[float], str]]:
        done = self.done()
        assert done.error is None, done.error
        return [(one.ids, one.logprobs, one.finish_reason) for one in done.completions]


@contextmanager
def scheduler(model: GPT2, **limits: Any) -> Iterator[Scheduler]:
    """One that has ended, with its threads, when the test does."""
    found = Scheduler(model, Limits(**limits))
    try:
        yield found
    finally:
        found.close()
        found.join(10)
        assert not found.thread.is_alive()
        assert not found.beside.alive


KINDS: list[dict[str, Any]] = [
    {},
    {"do_sample": True},
    {"do_sample": True, "num_return_sequences": 3, "top_k": 20},
    {"do_sample": True, "temperature": 1.7, "top_p": 0.8, "repetition_penalty": 1.3},
    {"do_sample": True, "best_of": 3, "num_return_sequences": 2},
    {"do_sample": True, "mirostat": 2},
    {"do_sample": True, "rng": "cuda", "min_p": 0.02},
    {"no_repeat_ngram_size": 2, "top_logprobs": 3},
    {"do_sample": True, "uniforms": [0.3, 0.9, 0.01, 0.5] * 20},
    {"num_beams": 3},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"do_sample": True, "guidance_scale": 1.5},
]


def mixed(model: GPT2, count: int, seed: int = 0) -> list[Asked]:
    """Requests of every kind, with prompts and texts of any length."""
    random_ = random.Random(seed)
    asked = []
    for number in range(count):
        names = dict(KINDS[number % len(KINDS)])
        if names.get("do_sample") and "uniforms" not in names:
            names["seed"] = number
        names["max_new_tokens"] = random_.randint(1, 30)
        ids = [random_.randrange(1, 97) for _ in range(random_.randint(1, 40))]
        asked.append(Asked(model, ids, **names))
    return asked


def slow(one: Scheduler, seconds: float = 0.05) -> None:
    """Make each step take so long."""
    step = one.slots.step

    def slowly(ids: Any) -> Any:
        time.sleep(seconds)
        return step(ids)

    one.slots.step = slowly  # type: ignore[method-assign]


def slow_beside(one: Scheduler, seconds: float = 0.02) -> None:
    """Make each pass of a search take so long, with others' turns in it."""
    check = one.beside.check

    def slowly(job: Job) -> None:
        time.sleep(seconds)
        check(job)

    one.beside.check = slowly  # type: ignore[method-assign]

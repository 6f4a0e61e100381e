"""Continuous batching in a program of your own, without HTTP: each text that is asked for is a future."""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ..display import Readable
from ..text import healing
from ..text.gpt2 import GPT2
from ..text.requests import Prompt
from ..text.results import Generation, generation
from ..text.stopping import criteria
from .jobs import Done, Event, Job
from .limits import Limits
from .scheduler import Scheduler

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..text.requests import Request


class Batched(Readable):
    """A model for many concurrent callers, from any thread: their texts are written in shared batches.

    >>> with Batched(GPT2.from_pretrained()) as batched:
    ...     futures = [batched.submit("The king", seed=seed, do_sample=True) for seed in range(8)]
    ...     texts = [future.result()[0].text for future in futures]

    Each is the text of `GPT2.generate` with the same options. `asyncio.wrap_future` makes a future awaitable.
    """

    def __init__(self, model: GPT2, limits: Limits | None = None) -> None:
        self.model, self.scheduler = model, Scheduler(model, limits)

    def submit(
        self, prompt: Prompt, *, num_return_sequences: int = 1, **options: Unpack[Request]
    ) -> Future[list[Generation]]:
        """Ask for the continuation of a prompt, with the options of `GPT2.generate`; a list of texts, or its error.

        ``ValueError`` at once for options that can't be, `Refused` where too many wait. A future that is cancelled
        makes room within a step.
        """
        names = cast("dict[str, Any]", dict(options))
        heals = healing.wanted(names, self.model.generation_config)
        wanted = names.pop("stopping_criteria", None)
        if num_return_sequences != 1:
            names["num_return_sequences"] = num_return_sequences
        ids = self.model.prompt_ids(prompt)
        strings, chosen = self.model.options(names, len(ids))
        stopping = criteria(wanted, strings, lambda: self.model.tokenizer)
        future: Future[list[Generation]] = Future()
        tokenizer = self.model.tokenizer if self.model.has_tokenizer else None

        def deliver(event: Event) -> None:
            if not isinstance(event, Done) or not future.set_running_or_notify_cancel():
                return
            if event.error is not None:
                future.set_exception(event.error)
            else:
                eos = chosen.eos_token_ids
                future.set_result([generation(job.ids, one, eos, tokenizer) for one in event.completions])

        seconds = self.scheduler.limits.seconds
        job = Job(ids, chosen, stopping, self.model.config.n_positions, deliver, seconds, heals=heals)
        future.add_done_callback(lambda done: self.scheduler.cancel([job]) if done.cancelled() else None)
        self.scheduler.submit([job])
        return future

    def close(self, grace: float = float("inf")) -> None:
        """Take on nothing more, and wait for what is in progress, at most the given seconds."""
        self.scheduler.close(grace)
        self.scheduler.join()

    def __enter__(self) -> Batched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(float("inf") if kind is None else 0.0)

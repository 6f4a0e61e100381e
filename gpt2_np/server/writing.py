"""From a checked request to its answer: whole, or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.types import Message

from ..display import Readable
from ..text.gpt2 import GPT2
from . import answers
from .answers import Piece, Text
from .completions import Completions
from .errors import Refused
from .jobs import Done, Event, Read, Top, Wrote
from .limits import Limits
from .scheduler import Scheduler


class Gone(Exception):
    """Raised when the client has disconnected."""


class Writing(Readable):
    """One running request: its jobs, and the choices of its answer.

    Events come from the scheduler's threads into a queue of the loop that made this object.
    """

    def __init__(self, asked: Completions, model: GPT2, name: str, scheduler: Scheduler, limits: Limits) -> None:
        self.asked, self.model, self.name, self.scheduler = asked, model, name, scheduler
        self.loop, self.events = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Event]]()
        self.id, self.created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
        self.jobs = asked.jobs(model, limits, self._deliver)
        self.texts: dict[int, Text] = {}
        self.open = set(range(len(self.jobs)))
        self.read: dict[int, Read] = {}
        self.written = 0

    def _deliver(self, number: int) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            with suppress(RuntimeError):  # the loop has been closed
                self.loop.call_soon_threadsafe(self.events.put_nowait, (number, event))

        return deliver

    def start(self) -> None:
        """Submit the jobs to the scheduler; `Refused` if it is busy."""
        self.scheduler.submit(self.jobs)

    def end(self) -> None:
        """Cancel the jobs that are still open, and let go of all of them.

        A job holds the function that delivers to this object: as long as each held the other, only Python's search for
        cycles, which may be minutes away, would free the memory of both.
        """
        jobs, self.jobs = self.jobs, []
        self.scheduler.cancel([job for number, job in enumerate(jobs) if number in self.open])

    async def gone(self, message: Message) -> None:
        """End, because the client of a stream has disconnected, even if nothing of it was sent."""
        self.end()

    async def whole(self, request: Request) -> dict[str, Any]:
        """Return the answer once everything is written. `Gone` if the client disconnects, `Refused` on an error."""
        pieces: dict[int, list[Piece]] = {}
        leaving = asyncio.ensure_future(left(request))
        try:
            while self.open:
                waiting = asyncio.ensure_future(self.events.get())
                await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    raise Gone
                for index, piece in self._pieces(*waiting.result()):
                    pieces.setdefault(index, []).append(piece)
        finally:
            leaving.cancel()
            self.end()
        choices = [self._choice(index, answers.joined(pieces[index])) for index in sorted(pieces)]
        return self._object(choices) | {"usage": self._usage()}

    async def first(self, request: Request) -> tuple[int, Event]:
        """Return the first event; before it an answer may still have another status."""
        leaving = asyncio.ensure_future(left(request))
        waiting = asyncio.ensure_future(self.events.get())
        try:
            await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Gone
            number, event = waiting.result()
            if isinstance(event, Done) and event.error is not None:
                raise event.error
            return number, event
        except BaseException:
            self.end()
            raise
        finally:
            leaving.cancel()
            waiting.cancel()

    async def stream(self, first: tuple[int, Event]) -> AsyncIterator[str]:
        """Yield the answer in pieces, as JSON, given the first event; it ends with "[DONE]" or an error."""
        more = {"usage": None} if self.asked.usage else {}
        try:
            event = first
            while True:
                for index, piece in self._pieces(*event):
                    if piece.text or piece.tokens or piece.finish_reason:
                        yield json.dumps(self._object([self._choice(index, piece)]) | more)
                if not self.open:
                    break
                event = await self.events.get()
            if self.asked.usage:
                yield json.dumps(self._object([]) | {"usage": self._usage()})
            yield "[DONE]"
        except Refused as error:
            yield json.dumps(error.body())
        finally:
            self.end()

    # ---- from events to pieces -------------------------------------------------------------------------------------

    def _pieces(self, number: int, event: Event) -> list[tuple[int, Piece]]:
        """Return what an event adds to the choices."""
        n = self.asked.copies if self.asked.writes else 1
        if isinstance(event, Read):
            self.read[number] = event
            return []
        if isinstance(event, Wrote):
            found: list[tuple[int, Piece]] = []
            for token in event.tokens:
                index = number * n + token.row
                found += self._added(index, token.id, token.logprob, token.top, token.finish_reason)
            return found
        self.open.discard(number)
        if event.error is not None:
            raise event.error
        if not self.asked.writes:
            piece = self._text(number).echoed(self.read.get(number))
            piece.finish_reason = "length"
            return [(number, piece)]
        found = []
        for row, completion in enumerate(event.completions):
            index, last = number * n + row, len(completion.ids) - 1
            for place in range(self._text(index).count, len(completion.ids)):
                top = completion.top[place] if completion.top else ()
                reason = completion.finish_reason if place == last else None
                found += self._added(index, completion.ids[place], completion.logprobs[place], top, reason)
        return found

    def _added(self, index: int, token: int, logprob: float, top: Top, reason: str | None) -> list[tuple[int, Piece]]:
        """One token's piece, after the prompt's where it is the first and the prompt is echoed."""
        text, found = self._text(index), []
        if self.asked.echo and not text.count:
            found.append((index, text.echoed(self.read.get(index // self.asked.copies))))
        self.written += 1
        found.append((index, text.add(token, logprob, top, reason)))
        return found

    def _text(self, index: int) -> Text:
        if index not in self.texts:
            prompt = self.asked.shown[index // (self.asked.copies if self.asked.writes else 1)]
            stop, eos = self.asked.stop, self.asked.options.eos_token_ids
            self.texts[index] = Text(self.model.tokenizer, prompt, stop, eos, self.asked.echo)
        return self.texts[index]

    def _choice(self, index: int, piece: Piece) -> dict[str, Any]:
        with_logprobs = self.asked.alternatives is not None
        return answers.choice(index, piece, self.model.tokenizer, with_logprobs, self.asked.with_ids)

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        }
        if self.asked.options.seed is not None:
            told["seed"] = self.asked.options.seed
        return told

    def _usage(self) -> dict[str, int]:
        return answers.usage(sum(map(len, self.asked.prompts)), self.written)


async def left(request: Request) -> None:
    """Return when the client has disconnected, after its body was read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return

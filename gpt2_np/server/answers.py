"""The answer in OpenAI's format: whole, or in pieces that add up to the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..display import Readable
from ..text.tokenizer import Tokenizer
from .jobs import Read, Top

LEAST = -9999.0  # OpenAI's value for a log-probability that JSON can't hold


@dataclass
class Told:
    """A token in the answer: its id, text, place in the text, log-probability and alternatives (the first has none)."""

    id: int
    name: str
    offset: int
    logprob: float | None
    top: Top | None


@dataclass
class Piece:
    """A piece of a choice: text, and the tokens that begin in it."""

    text: str = ""
    tokens: list[Told] = field(default_factory=list)
    finish_reason: str | None = None


class Text(Readable):
    """One choice while it is written: `add` returns what is certain.

    A text is cut before a `stop` string, so text that may be the beginning of one is held back. Tokens that begin after
    the cut are not part of the answer either.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str], eos: Sequence[int], echo: bool
    ) -> None:
        self.tokenizer, self.prompt, self.stop, self.eos = tokenizer, prompt, stop, eos
        self.streamer = tokenizer.streamer()
        self.before = tokenizer.decode(prompt)
        self.longest = max(map(len, stop), default=1) - 1
        self.tail = self.before[len(self.before) - self.longest :]  # a stop string may begin in the prompt
        self.start = len(self.before) if echo else 0  # of what is written, in the text that is told
        self.text, self.given, self.count = "", 0, 0
        self.held: list[Told] = []
        self.finish_reason: str | None = None

    def echoed(self, read: Read | None) -> Piece:
        """Return the prompt, with its log-probabilities if they were asked for."""
        piece = Piece(self.before)
        if read is None:
            return piece
        streamer, offset = self.tokenizer.streamer(), 0
        logprobs: list[float | None] = [None, *read.logprobs]
        top: list[Top | None] = [None, *read.top]
        for token, logprob, others in zip(self.prompt, logprobs, top, strict=False):
            piece.tokens.append(Told(token, name(self.tokenizer, token), offset, logprob, others))
            offset += len(streamer.feed(token))
        return piece

    def add(self, token: int, logprob: float, top: Top, finish_reason: str | None) -> Piece:
        """Add one more token, with the reason if the text ends with it."""
        self.count += 1
        before = len(self.text)
        self.held.append(Told(token, name(self.tokenizer, token), self.start + before, logprob, top))
        self.text += "" if token in self.eos else self.streamer.feed(token)
        if finish_reason is None:
            return self._give(len(self.text) - self._beginning())
        self.text += self.streamer.finish()
        self.finish_reason = finish_reason
        cut = self._cut(before) if finish_reason == "stop" and token not in self.eos else None
        if cut is not None:
            self.text = self.text[:cut]
            self.held = [one for one in self.held if one.offset < self.start + cut]
        piece = self._give(len(self.text))
        return Piece(piece.text, [*piece.tokens, *self.held], finish_reason)

    def _give(self, end: int) -> Piece:
        """The text up to here, and the tokens that begin in it."""
        piece = Piece(self.text[self.given : end])
        self.given = max(end, self.given)
        while self.held and self.held[0].offset < self.start + self.given:
            piece.tokens.append(self.held.pop(0))
        return piece

    def _beginning(self) -> int:
        """Return how many characters at the end may be the beginning of a stop string."""
        end = (self.tail + self.text)[-self.longest :] if self.longest else ""
        for count in range(len(end), 0, -1):
            if any(one.startswith(end[-count:]) for one in self.stop):
                return min(count, len(self.text) - self.given)
        return 0

    def _cut(self, before: int) -> int | None:
        """Return where the first stop string begins that ends after the first `before` characters."""
        whole, found = self.tail + self.text, []
        for one in self.stop:
            place = whole.find(one, max(0, len(self.tail) + before - len(one) + 1))
            if place >= 0:
                found.append(max(0, place - len(self.tail)))
        return min(found, default=None)


def name(tokenizer: Tokenizer, token: int) -> str:
    """Return a token's text; for part of a character its bytes, as OpenAI's API names them."""
    spelt = tokenizer.bytes_of(token)
    try:
        return spelt.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)


def number(value: float) -> float:
    """Return a log-probability that JSON can hold."""
    return max(value, LEAST)


def logprobs(tokens: Sequence[Told], tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokens in OpenAI's shape for completions: a list for each kind of thing that is told."""
    top: list[dict[str, float] | None] = []
    for one in tokens:
        if one.top is None or one.logprob is None:
            top.append(None)
            continue
        named = {name(tokenizer, other): number(value) for other, value in reversed(one.top)}
        top.append(dict(reversed(named.items())) | {one.name: number(one.logprob)})
    return {
        "tokens": [one.name for one in tokens],
        "token_logprobs": [None if one.logprob is None else number(one.logprob) for one in tokens],
        "top_logprobs": top,
        "text_offset": [one.offset for one in tokens],
    }


def choice(index: int, piece: Piece, tokenizer: Tokenizer, with_logprobs: bool, with_ids: bool) -> dict[str, Any]:
    """A choice, or a piece of one."""
    told: dict[str, Any] = {
        "index": index,
        "text": piece.text,
        "logprobs": logprobs(piece.tokens, tokenizer) if with_logprobs else None,
        "finish_reason": piece.finish_reason,
    }
    if with_ids:
        told["token_ids"] = [one.id for one in piece.tokens]
    if with_ids and with_logprobs:
        told["alternatives"] = [alternatives(one.top or (), tokenizer) for one in piece.tokens]
    return told


def alternatives(top: Top, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The likeliest tokens at one place, with their ids, which two tokens of the same text differ by."""
    return [{"id": one, "text": name(tokenizer, one), "logprob": number(value)} for one, value in top]


def joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces as one."""
    return Piece(
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.tokens],
        pieces[-1].finish_reason if pieces else None,
    )


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return how many tokens were read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

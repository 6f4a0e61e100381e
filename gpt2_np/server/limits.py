"""The limits of a server, each with its default and its help."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from decoders.base.errors import require


def limit(default: Any, help: str, least: float = 1) -> Any:
    """Return a field with its help text and its least value."""
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True)
class Limits:
    """A server's limits; ``ValueError``, in one line, for one that can't be.

    ``rows`` texts are decoded together, which may come to ``tokens`` tokens, prompts and room for new ones counted; so
    may the ``searches`` that run beside them. ``queue`` requests wait for that. The others are of one request.
    """

    rows: int = limit(32, "Texts that are written at once.")
    tokens: int = limit(65536, "Tokens of all texts in progress together, room for new ones counted.")
    searches: int = limit(4, "Searches that run at once beside those texts; their tokens count apart.")
    queue: int = limit(256, "Requests that may wait; one more is refused (429).")
    seconds: float = limit(600.0, "How long one request may take, waiting included.", 0)
    texts: int = limit(64, "Texts of one request: prompts times n (or best_of, or beams).")
    new_tokens: int = limit(4096, "New tokens of one text (max_tokens).")
    alternatives: int = limit(100, "Alternatives that are told of each token (logprobs).", 0)
    stops: int = limit(16, "Stop strings of one request.")
    body: int = limit(1 << 20, "Bytes of a request's body.")
    constraint: int = limit(1 << 16, "Characters of a regex, schema, grammar or list of choices.")
    constraint_seconds: float = limit(3.0, "How long it may take to compile one.", 0)
    page_tokens: int = limit(128, "Tokens of a text that is looked into.")

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata["least"]
            require(
                value >= least if least else value > 0 or one.type == "int",
                f"{one.name} must be at least {least:g}",
                value,
            )

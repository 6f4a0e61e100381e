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

    rows: int = limit(32, "How many texts are decoded at once.")
    tokens: int = limit(65536, "How many tokens all texts in progress may have together, counting room for new ones.")
    searches: int = limit(4, "How many searches run at once beside those texts; their tokens are counted separately.")
    queue: int = limit(256, "How many requests may wait; further ones are refused (429).")
    seconds: float = limit(600.0, "How many seconds one request may take, including its wait.", 0)
    texts: int = limit(64, "How many texts one request may ask for: prompts times n (or best_of, or beams).")
    new_tokens: int = limit(4096, "The largest max_tokens of one text.")
    alternatives: int = limit(100, "How many alternatives are returned for each token (logprobs).", 0)
    stops: int = limit(16, "How many stop strings one request may have.")
    body: int = limit(1 << 20, "How many bytes a request's body may have.")
    constraint: int = limit(1 << 16, "How many characters a regex, schema, grammar or list of choices may have.")
    constraint_seconds: float = limit(3.0, "How many seconds it may take to compile one of these.", 0)
    page_tokens: int = limit(128, "How many tokens a text may have that /inspect shows.")

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata["least"]
            require(
                value >= least if least else value > 0 or one.type == "int",
                f"{one.name} must be at least {least:g}",
                value,
            )

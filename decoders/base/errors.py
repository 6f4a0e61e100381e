"""How a wrong value is refused: one line, with the rule and the value."""

from __future__ import annotations

MOST = 1000  # characters of a value that a message quotes


def shown(value: object) -> str:
    """A value as a message quotes it: in one line, which of a long one is the beginning."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= MOST else f"{text[:MOST]}…"


def require(condition: bool, rule: str, value: object) -> None:
    """``ValueError`` that quotes the rule and the value: "top_k must be at least 1, got 0"."""
    if not condition:
        raise ValueError(f"{rule}, got {shown(value)}")

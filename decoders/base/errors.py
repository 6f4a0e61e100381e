"""Error messages for invalid values: one line, with the rule and the value."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 1000  # characters of a value that a message quotes at most


def shown(value: object) -> str:
    """Return a value as a message quotes it: in one line, cut if it is long."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= MOST else f"{text[:MOST]}…"


def require(condition: bool, rule: str, value: object) -> None:
    """Raise ``ValueError`` that quotes the rule and the value: "top_k must be at least 1, got 0"."""
    if not condition:
        raise ValueError(f"{rule}, got {shown(value)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: a known one that starts with it or resembles it; "" if there is none."""
    names = list(known)
    begin = sorted((one for one in names if len(name) > 2 and one.startswith(name)), key=len)
    import difflib

    near = begin or difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""

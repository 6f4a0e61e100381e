"""How a wrong value is refused: one line, with the rule and the value."""

from __future__ import annotations


def require(condition: bool, rule: str, value: object) -> None:
    """``ValueError`` that quotes the rule and the value: "top_k must be at least 1, got 0"."""
    if not condition:
        raise ValueError(f"{rule}, got {value!r}")

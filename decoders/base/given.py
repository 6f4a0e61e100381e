"""Which options were given, and which exclude each other."""

from __future__ import annotations

from typing import Any

from .errors import shown


def given(options: Any, name: str) -> bool:
    """Whether an option differs from its default."""
    return name in options.given


def excluded(name: str, options: Any, *others: str) -> None:
    """``ValueError`` for the first of `others` that was given beside `name`."""
    for other in others:
        if given(options, other):
            raise ValueError(f"{name} can't be combined with {other}, got {shown(getattr(options, other))}")

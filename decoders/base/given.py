"""Tests of which options were given, and of which exclude each other."""

from __future__ import annotations

from typing import Any

from .errors import shown


def given(options: Any, name: str) -> bool:
    """Tell whether an option differs from its default."""
    return name in options.given


def excluded(name: str, options: Any, *others: str) -> None:
    """Raise ``ValueError`` for the first of `others` that was given together with `name`."""
    for other in others:
        if given(options, other):
            raise ValueError(f"{name} can't be combined with {other}, got {shown(getattr(options, other))}")

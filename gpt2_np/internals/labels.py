"""Tokens in a form that tables and pictures can show."""

from __future__ import annotations


def visible(token: str) -> str:
    """Return a token with everything visible: blanks as ␣, line ends as ↵, tabs as ⇥, nothing at all as ∅."""
    shown = token.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥")
    return "".join(letter if letter.isprintable() else "·" for letter in shown) or "∅"

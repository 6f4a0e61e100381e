"""Tokens as a table or a picture can show them."""

from __future__ import annotations


def visible(token: str) -> str:
    """A token in which everything can be seen: blanks as ␣, line ends as ↵, tabs as ⇥, nothing at all as ∅."""
    shown = token.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥")
    return "".join(letter if letter.isprintable() else "·" for letter in shown) or "∅"

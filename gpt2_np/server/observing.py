"""The observer of a server's work; by default there is none."""

from __future__ import annotations

from ..display import Readable


class Observer(Readable):
    """Receives each event in the thread where it happens; `metrics` counts them."""

    def submitted(self) -> None:
        """A text was asked for."""

    def first(self, seconds: float) -> None:
        """A request's first token came this many seconds after its arrival."""

    def between(self, seconds: float) -> None:
        """Two steps followed each other so far apart: from one token of a text to its next, prompts read in between."""

    def read(self, positions: int) -> None:
        """So many ids of a prompt were read."""

    def wrote(self, tokens: int) -> None:
        """So many new ids were chosen."""

    def ended(self, reason: str) -> None:
        """A request came to its end: "done", "cancelled", or an error's code or type."""

    def standing(self, waiting: int, rows: int, tokens: int) -> None:
        """Receive how many requests wait, how many texts grow, and how many tokens they may come to."""

"""What is known of an option before its method's file is loaded."""

from __future__ import annotations

from typing import Any, NamedTuple


class Listed(NamedTuple):
    """An option in the table `fields.OPTIONS`: its method's file, its value type, and its flag on the command line."""

    home: str
    kind: str
    flag: str
    choices: tuple[Any, ...] = ()
    repeatable: bool = False

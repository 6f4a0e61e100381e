"""Files of many prompts: one prompt per line, or JSONL with options for each line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..text.lines import Line as Line
from ..text.lines import parse as parse


def standard_input() -> str:
    """All of standard input as text. ``ValueError`` names the first byte that is not UTF-8."""
    try:
        return b"".join(_stdin()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input must be UTF-8 text; byte {error.start} is not") from None


def read_lines(path: Path, jsonl: bool | None = None) -> Iterator[Line]:
    """The prompts of a file, or of standard input ("-"), as they are read; empty lines are none.

    A file whose name ends in .jsonl holds JSON objects, any other a prompt a line; standard input is JSONL where its
    first line is an object; unless `jsonl` says so. ``OSError`` where a file can't be read.
    """
    if str(path) == "-":
        yield from parse(_stdin(), jsonl)
        return
    with path.open("rb") as file:
        yield from parse(file, path.suffix.lower() == ".jsonl" if jsonl is None else jsonl)


def count(path: Path) -> int | None:
    """Return how many prompts a file holds, or None if it would have to be read to know."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _stdin() -> Iterator[bytes]:
    """Its lines. ``OSError`` names it where it can't be read."""
    try:
        yield from sys.stdin.buffer
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard input") from None

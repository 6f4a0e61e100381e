"""Lines of a file: one text per line, or JSONL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from decoders.base.errors import shown

from ..system.errors import in_words

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One prompt of many: its number, counted from 0, and what its line says, or why that can't be read."""

    index: int
    fields: dict[str, Any]
    error: str | None = None


def parse(lines: Iterable[bytes], jsonl: bool | None) -> Iterator[Line]:
    """Lines as prompts; of `jsonl` None, the first line decides."""
    index = 0
    for number, raw in enumerate(lines):
        line = raw.removeprefix(BYTE_ORDER_MARK) if number == 0 else raw
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if not line.strip():
            continue
        if jsonl is None:
            jsonl = is_object(line)
        yield of_json(index, line) if jsonl else of_text(index, line)
        index += 1


def is_object(line: bytes) -> bool:
    """Tell whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def of_text(index: int, line: bytes) -> Line:
    """A line that is a prompt."""
    try:
        return Line(index, {"prompt": line.decode("utf-8")})
    except UnicodeDecodeError as error:
        return Line(index, {}, f"a line must be UTF-8 text; its byte {error.start} is not")


def of_json(index: int, line: bytes) -> Line:
    """A line that is an object."""
    try:
        found = json.loads(line)
    except RecursionError:
        return Line(index, {}, "a line must be a JSON object, got one that is nested too deeply")
    except ValueError as error:  # not UTF-8, not JSON, a number of thousands of digits
        return Line(index, {}, f"a line must be a JSON object: {in_words(error)}")
    if not isinstance(found, dict):
        return Line(index, {}, f"a line must be a JSON object, got {shown(found)}")
    return Line(index, found)

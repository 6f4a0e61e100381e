"""The description of a run over a corpus, which every worker is given and which is stored beside the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..system.files import JSONObject
from ..text.lines import Line

TASKS = ("score", "generate", "capture")
IDS = ("row", "number", "text")  # rows have no id of their own; it is a whole number; it is text
Identity = int | str


@dataclass(frozen=True)
class Job:
    """The task, the model, and how rows are read.

    ``field`` is the name under which a row of JSONL or Parquet holds its text, ``id_field`` the one of its id; ``ids``
    is one of `IDS`. ``fingerprint`` tells the model's files from others (`models.fingerprint`).
    """

    task: str
    model: str
    dtype: str
    backend: str
    fingerprint: str
    field: str
    id_field: str
    ids: str
    options: JSONObject = dataclasses.field(default_factory=dict)

    def about(self) -> JSONObject:
        """Return the fields that decide the results: a later run goes on with them only if all are equal."""
        found = asdict(self)
        del found["model"]  # its files decide, wherever they are
        return found

    @property
    def columns(self) -> list[str] | None:
        """Return the columns of a Parquet file that are read; None means all."""
        if self.task == "generate":
            return None
        return [self.field, self.id_field, *(("prompt", "stride") if self.task == "score" else ())]

    def read(self, line: Line, plain: bool) -> tuple[Identity | None, Line]:
        """Return a row's own id, if it has one, and the row as the task takes it, its text under the task's own name.

        What else a row holds is left out, but for `generate`, where it is options. The lines of a `plain` file of text
        have no fields to be named.
        """
        fields = dict(line.fields)
        given = fields.pop(self.id_field, None)
        if not plain and self.field != self.own_field:
            fields.pop(self.own_field, None)
            if self.field in fields:
                fields[self.own_field] = fields.pop(self.field)
        if self.task == "score":
            fields = {name: value for name, value in fields.items() if name in ("text", "prompt", "stride")}
        error = line.error
        identity: Identity | None = None
        if given is not None and self.ids == "text" and type(given) in (str, int):
            identity = str(given)
        elif given is not None and self.ids == "number" and type(given) is int and -(2**63) <= given < 2**63:
            identity = given
        elif given is not None:
            kind = {"row": "absent", "number": "a whole number", "text": "a text or a whole number"}[self.ids]
            error = error or f"an id must be {kind}, as those of the first rows are, got {given!r:.60}"
        return identity, Line(line.index, fields, error)

    def number(self, line: Line) -> Identity:
        """Return the id of a row that has none of its own, which is its number."""
        return str(line.index) if self.ids == "text" else line.index

    @property
    def own_field(self) -> str:
        """Return the task's own name for a row's text."""
        return default_field(self.task)


def default_field(task: str) -> str:
    """Return a task's own name for a row's text."""
    return "prompt" if task == "generate" else "text"


def kind_of_ids(firsts: Iterable[Line], id_field: str) -> str:
    """Return which of `IDS` a corpus has, by the first row of each file: text if one of them is text.

    ``ValueError`` for an id that is neither a number nor text.
    """
    found = set()
    for line in firsts:
        given: Any = line.fields.get(id_field)
        if given is not None and type(given) not in (int, str):
            raise ValueError(f"an id must be a whole number or a text, got {given!r:.60} in row {line.index}")
        found.add("row" if given is None else "number" if type(given) is int else "text")
    return next(kind for kind in ("text", "number", "row") if kind in found or kind == "row")

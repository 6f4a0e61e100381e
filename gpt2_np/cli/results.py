"""Results of many prompts as JSONL: on standard output, or in a file that a later run goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..system.files import lock
from .plain import dumps

Record = dict[str, Any]


class Printed:
    """Results on standard output, one object a line."""

    done: dict[int, Record] = {}  # noqa: RUF012  nothing is there before

    def __enter__(self) -> Printed:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, records: Sequence[Record]) -> None:
        """The results of one prompt."""
        print("\n".join(dumps(record) for record in records), flush=True)


class Appended:
    """Results at the end of a file. `done` are those of an earlier run, by index: the first line of each.

    What a run that was killed left half-written is dropped: a last line without its end, and the last prompt's lines
    where some of its sequences are missing. ``ValueError`` for a file that holds anything but such results, or that
    another run is writing; ``OSError`` where it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[int, Record] = {}
        if path.exists() and not path.is_file():  # a pipe or a device
            self.file: BinaryIO = open(path, "wb", buffering=0)  # noqa: SIM115
            return
        self.file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            alone(self.file, path)
            end = self.read()
            self.file.truncate(end)
            self.file.seek(end)
        except BaseException:
            self.file.close()
            raise

    def read(self) -> int:
        """Note what is done, and return where the sound part of the file ends."""
        end = start = count = 0  # of the sound part; of the last index's lines in it; how many those are
        last: Record = {}
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                record = self.record(line, number)
                if not last or record["index"] != last["index"]:
                    start, count, last = end, 0, record
                self.done.setdefault(record["index"], record)
                end, count = end + len(line), count + 1
        if last and count < last.get("sequences", 1):
            del self.done[last["index"]]
            return start
        return end

    def record(self, line: bytes, number: int) -> Record:
        """A line's object. ``ValueError`` where it is no result."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        index = found.get("index") if isinstance(found, dict) else None
        if type(index) is not int or index < 0 or type(found.get("sequences", 1)) is not int:
            raise ValueError(
                f"{self.path} must hold results with an index each, to go on with; line {number} is none. "
                "Choose another --output"
            )
        record: Record = found
        return record

    def __enter__(self) -> Appended:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()

    def write(self, records: Sequence[Record]) -> None:
        """The results of one prompt, in one go."""
        content = memoryview("".join(f"{dumps(record, 'utf-8')}\n" for record in records).encode("utf-8"))
        try:
            while content:
                content = content[self.file.write(content) :]
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(self.path)) from None


def alone(file: BinaryIO, path: Path) -> None:
    """``ValueError`` where another process holds the file; it is held until it is closed."""
    if not lock(file):
        raise ValueError(f"{path} is being written by another run; wait for it, or choose another --output")


def results(output: Path | None) -> Printed | Appended:
    """Return the place where results are written."""
    return Printed() if output is None or str(output) == "-" else Appended(output)

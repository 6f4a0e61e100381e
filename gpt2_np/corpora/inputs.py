"""A corpus's files: cut into parts of a few hundred rows, and read part by part, by whoever works on one.

A row is a line of a text file, a line of JSONL, or a row of a Parquet file; lines of white space are none. Rows are
numbered from 0 through all files, in the order in which these are given. Where the parts lie follows from the files and
from `Cut` alone, so two runs over the same files have the same parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..system.errors import in_words
from ..text.lines import BYTE_ORDER_MARK, Line, of_json, of_text
from .packages import arrow, parquet

Array = np.ndarray
KINDS = {".jsonl": "jsonl", ".parquet": "parquet"}  # any other file is text
BLOCK = 1 << 24  # bytes that are looked through at once
SPACE = np.array([byte in b" \t\n\r\x0b\x0c" for byte in range(256)])
PACKED = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}


class Cut(NamedTuple):
    """The largest size of a part, in rows and in bytes of a file; a single row may have more bytes."""

    rows: int
    bytes: int


class Source(NamedTuple):
    """One file. ``digest`` is that of its bytes; of a Parquet file, of its footer, which describes all the rest."""

    path: str
    kind: str
    bytes: int
    rows: int
    digest: str


class Part(NamedTuple):
    """Rows of one file that are worked on together, and whose results are one shard.

    ``first`` is the number of the first of them in the corpus; ``start`` and ``stop`` are bytes of the file, or rows of
    a Parquet file.
    """

    number: int
    source: int
    start: int
    stop: int
    first: int
    rows: int


def files_of(paths: Sequence[str | Path]) -> list[Path]:
    """Return the named files, and of a folder the files in it that end in .txt, .jsonl or .parquet, by name.

    ``OSError`` or ``ValueError`` for one that isn't there, and for a folder without such files.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            within = sorted(one for one in path.rglob("*") if one.suffix.lower() in (".txt", *KINDS) and one.is_file())
            if not within:
                raise ValueError(f"{path} holds no .txt, .jsonl or .parquet file")
            found += within
        elif path.exists() and not path.is_file():
            raise ValueError(f"{path} must be a file or a folder: a corpus is read from several places at once")
        else:
            found.append(path)
    return found


def scan(paths: Sequence[Path], cut: Cut) -> tuple[list[Source], list[Part]]:
    """Look through the files, and return what they are and the parts that they are cut into.

    ``OSError`` names a file that can't be read, ``ValueError`` one that is packed or broken; and where there is no row.
    """
    sources: list[Source] = []
    parts: list[Part] = []
    first = 0
    for number, path in enumerate(paths):
        kind = KINDS.get(path.suffix.lower(), "text")
        digest = hashlib.sha256()
        found = parts_of_table(path, cut, digest) if kind == "parquet" else parts_of_lines(path, cut, digest)
        before = first
        for start, stop, rows in found:
            parts.append(Part(len(parts), number, start, stop, first, rows))
            first += rows
        sources.append(Source(str(path), kind, path.stat().st_size, first - before, digest.hexdigest()))
    if not first:
        raise ValueError(f"there is no row in {', '.join(map(str, paths[:5]))}")
    return sources, parts


def parts_of_lines(path: Path, cut: Cut, digest: Any) -> Iterator[tuple[int, int, int]]:
    """Yield (first byte, byte after the last, rows) of each part of a file of lines, and feed the digest all bytes."""
    begin = stop = rows = 0
    with path.open("rb") as file:
        for starts, ends in lines_of(file, path, digest):
            at = 0
            while at < len(starts):
                if not rows:
                    begin = int(starts[at])
                room = int(np.searchsorted(ends, begin + cut.bytes, side="right")) - at
                more = min(max(room, 0 if rows else 1), cut.rows - rows, len(starts) - at)
                if more:
                    at, rows = at + more, rows + more
                    stop = int(ends[at - 1])
                if at < len(starts):
                    yield begin, stop, rows
                    rows = 0
    if rows:
        yield begin, stop, rows


def lines_of(file: BinaryIO, path: Path, digest: Any) -> Iterator[tuple[Array, Array]]:
    """Yield where lines begin and end, many at a time; lines of white space alone are left out."""
    offset, tail = 0, b""  # where `tail`, the beginning of a line, stands in the file
    while True:
        block = file.read(BLOCK)
        if offset == 0 and not tail:
            refuse_packed(block, path)
        digest.update(block)
        data = tail + block if tail else block
        size = len(data) if not block else data.rfind(b"\n") + 1
        if size:
            ends = np.flatnonzero(np.frombuffer(data, np.uint8, size) == 10) + 1
            if not block and (not len(ends) or ends[-1] < size):
                ends = np.append(ends, size)
            starts = np.append(0, ends[:-1])
            if offset == 0 and data.startswith(BYTE_ORDER_MARK):
                starts[0] = len(BYTE_ORDER_MARK)
            kept = np.frombuffer(data + b" ", np.uint8)[starts]  # the byte that each begins with
            blank = SPACE[kept]
            for one in np.flatnonzero(blank):
                blank[one] = not data[starts[one] : ends[one]].strip()
            yield starts[~blank] + offset, ends[~blank] + offset
        if not block:
            return
        offset, tail = offset + size, data[size:]


def refuse_packed(start: bytes, path: Path) -> None:
    """Raise ``ValueError`` for a file that begins as packed files do."""
    packed = next((name for mark, name in PACKED.items() if start.startswith(mark)), None)
    if packed:
        raise ValueError(f"{path} is packed ({packed}): its parts can't be read apart, so unpack it first")
    if start.startswith(b"PAR1"):
        raise ValueError(f"{path} is a Parquet file: let its name end in .parquet")


def parts_of_table(path: Path, cut: Cut, digest: Any) -> Iterator[tuple[int, int, int]]:
    """Yield (first row, row after the last, rows) of each part of a Parquet file, and feed the digest its footer."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        end = file.read(8)
        size = int.from_bytes(end[:4], "little") + 8
        file.seek(-min(size, path.stat().st_size), os.SEEK_END)
        digest.update(file.read(size))
    with opened(path) as table:
        about = table.metadata
        start = 0
        for group in map(about.row_group, range(about.num_row_groups)):
            each = group.total_byte_size / max(1, group.num_rows)
            most = max(1, min(cut.rows, int(cut.bytes / max(1.0, each))))
            for row in range(start, start + group.num_rows, most):
                stop = min(row + most, start + group.num_rows)
                yield row, stop, stop - row
            start += group.num_rows


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    """Open a Parquet file. ``ValueError`` names a broken one, whenever that shows, ``OSError`` one that can't be read.

    Only its footer is read at once: what is wrong with the pages behind it shows when rows are read.
    """
    with open(path, "rb"):  # what Arrow says where this fails has another form for every reason
        pass
    try:
        with parquet().ParquetFile(path) as table:
            yield table
    except (ValueError, OSError, arrow().ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Arrow's
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise ValueError(f"{path} is not a sound Parquet file: {' '.join(in_words(error).split())}") from None


def read(source: Source, part: Part, columns: Sequence[str] | None = None) -> list[Line]:
    """Return the rows of a part, each with its number in the corpus, or with the reason why it can't be read.

    Of a Parquet file `columns` are read, all where None. ``ValueError`` where the file has changed since it was looked
    through, ``OSError`` where it can't be read.
    """
    if source.kind == "parquet":
        lines = list(rows_of(source, part, columns))
    else:
        with open(source.path, "rb") as file:
            file.seek(part.start)
            raw = [one for one in file.read(part.stop - part.start).split(b"\n") if one.strip()]
        of = of_json if source.kind == "jsonl" else of_text
        lines = [of(part.first + at, one.removesuffix(b"\r")) for at, one in enumerate(raw)]
    if len(lines) != part.rows:
        raise ValueError(
            f"{source.path} has changed since the run began: a part has {len(lines)} rows, not {part.rows}"
        )
    return lines


def rows_of(source: Source, part: Part, columns: Sequence[str] | None) -> Iterator[Line]:
    """Yield the rows of a part of a Parquet file; nulls are left out."""
    with opened(source.path) as table:
        present = table.schema_arrow.names
        chosen = [name for name in present if columns is None or name in columns]
        start = 0
        for number in range(table.metadata.num_row_groups):
            stop = start + table.metadata.row_group(number).num_rows
            if start <= part.start < stop:
                at = start
                for batch in table.iter_batches(1024, row_groups=[number], columns=chosen):
                    some = slice(max(part.start - at, 0), min(part.stop - at, len(batch)))
                    for offset, row in enumerate(batch.slice(some.start, max(0, some.stop - some.start)).to_pylist()):
                        fields = {name: value for name, value in row.items() if value is not None}
                        yield Line(part.first + at + some.start + offset - part.start, fields)
                    at += len(batch)
                    if at >= part.stop:
                        break
            start = stop

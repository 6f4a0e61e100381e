"""Parts that were made apart, put together: folders of shards, captures, lenses, a dictionary's figures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from ..internals import jacobian_lens
from ..internals.capture import Captured
from ..internals.dictionaries import sums
from ..system.files import JSONObject, write_whole
from ..weights.header import safely_opened
from . import captures, folder, shards

ABOUT_RUN = ("task", "dtype", "backend", "fingerprint", "options", "ids")


@dataclass(frozen=True)
class Merged:
    """The result of a merge: its kind ("score", "generate", "capture", "lens" or "figures"), and how many rows or
    texts.
    """

    kind: str
    out: Path
    parts: int
    count: int


def merge(parts: Sequence[str | Path], out: str | Path) -> Merged:
    """Put parts together, in the order in which they are given, and write what one run over all would have written.

    Parts are folders of `score`, `generate` or `capture`, which must be finished, and become one; captures of
    `gpt2-np internals capture`; lenses, of which each text counts once (`jacobian_lens.merge`); or a dictionary's
    figures (`gpt2-np internals evaluate-dictionary --sums`). Rows without an id are numbered
    anew; in a corpus that has ids, they keep the number that they had. ``ValueError`` for parts of different kinds,
    models or options, and for an `out` that is there already; ``OSError`` for what can't be read or written.
    """
    paths, out = [Path(part) for part in parts], Path(out)
    if not paths:
        raise ValueError("there is nothing to merge: give at least one part")
    kinds = {path: kind_of(path) for path in paths}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path} ({kind})" for path, kind in kinds.items())
        raise ValueError(f"parts to merge must be of one kind, got {told}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name another one")
    kind = kinds[paths[0]]
    if kind == "lens":
        lens = jacobian_lens.merge([jacobian_lens.load(path) for path in paths])
        lens.save(out)
        return Merged(kind, out, len(paths), lens.texts)
    if kind == "figures":
        whole = sums.merge([sums.load(path) for path in paths])
        whole.save(out)
        return Merged(kind, out, len(paths), whole.sums.texts)
    if kind == "captured":
        return merge_captured(paths, out)
    return merge_runs(paths, out)


def kind_of(path: Path) -> str:
    """Return the kind of a part. ``ValueError`` for anything that can't be merged."""
    if (path / folder.ABOUT).is_file():
        return str(folder.read(path)["task"])
    if (path / folder.CAPTURE).is_file():
        return "captured"
    if path.is_file():
        try:
            with safely_opened(path) as file:
                told = (file.metadata() or {}).get("format")
        except ValueError:
            told = None
        kind = {jacobian_lens.FORMAT: "lens", sums.FORMAT: "figures"}.get(str(told))
        if kind:
            return kind
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    raise ValueError(f"{path} is neither a folder of shards or captures, nor a lens, nor a dictionary's figures")


def merge_runs(paths: Sequence[Path], out: Path) -> Merged:
    """Make one folder of those of several runs: shards get new numbers, and so do rows without ids."""
    abouts = [checked(path) for path in paths]
    for path, about in zip(paths, abouts, strict=True):
        for name in ABOUT_RUN:
            if about[name] != abouts[0][name]:
                other = folder.difference(name, about, abouts[0][name])
                raise ValueError(f"{path} is of another {folder.WORDS[name]} than {paths[0]}{other}")
    first = abouts[0]
    task, ids = first["task"], first["ids"]
    whole: JSONObject = dict(first)
    for name in ("field", "id_field", "cut"):
        whole[name] = first[name] if all(about[name] == first[name] for about in abouts) else None
    whole |= {"inputs": [], "files": [], "parts": []}
    errors: list[JSONObject] = []
    with folder.held(out):
        rows = 0
        for path, about in zip(paths, abouts, strict=True):
            offset, files = len(whole["parts"]), len(whole["files"])
            for part in about["parts"]:
                number, source, start, stop, row, count = part
                whole["parts"].append([offset + number, files + source, start, stop, rows + row, count])
                old = path / shards.name_of(task, number)
                told = moved(shards.about(old), offset, rows, ids)
                errors += told["errors"]
                copy(task, ids, old, out / shards.name_of(task, offset + number), told, rows)
            whole["files"] += about["files"]
            whole["inputs"] += about["inputs"]
            rows += sum(one["rows"] for one in about["inputs"])
        if task == "capture":
            told = captures.read(paths[0])
            captures.write(out, told["names"], told["dtype"], told["model"], len(whole["parts"]))
        folder.write_errors(out, errors)
        write_whole(out / folder.ABOUT, (json.dumps(whole) + "\n").encode())  # last: it says that all is there
    return Merged(task, out, len(paths), rows)


def checked(path: Path) -> JSONObject:
    """Return the description of a folder's run. ``ValueError`` if the run isn't finished."""
    about = folder.read(path)
    missing = len(about["parts"]) - len(folder.done(path, about["task"]))
    if missing:
        raise ValueError(f"{path} is not finished: {missing} of its {len(about['parts'])} shards are missing")
    return about


def moved(about: JSONObject, part: int, row: int, ids: str) -> JSONObject:
    """Return a shard's description with its part and rows counted after those of the folders before it."""

    def identity(one: Any) -> Any:
        return one + row if ids == "row" else one

    found = about | {"part": about["part"] + part, "first": about["first"] + row}
    found["errors"] = [one | {"row": one["row"] + row} for one in about["errors"]]
    if "texts" in about:
        found["texts"] = [[number + row, identity(one)] for number, one in about["texts"]]
    return found


def copy(task: str, ids: str, old: Path, new: Path, about: JSONObject, row: int) -> None:
    """Write a shard again under its new description; rows without ids get new numbers."""
    if task == "capture":
        with safely_opened(old):
            arrays = load_file(old)  # in the file's own order
        shards.write_arrays(new, arrays, about)
        return
    records = shards.records_of(old)
    shift = row if ids == "row" else 0
    renumbered = [dict(record) | {"id": record["id"] + shift} if shift else dict(record) for record in records]
    shards.write_table(new, shards.schema(task, ids), renumbered, about)


def merge_captured(paths: Sequence[Path], out: Path) -> Merged:
    """Make one capture of several: their chunks get new numbers, as further names of the same files if possible."""
    parts = [Captured(path) for path in paths]
    for part in parts:
        for name in ("names", "dtype", "model"):
            if part.about[name] != parts[0].about[name]:
                raise ValueError(f"{part.folder} is a capture with another {name} than {parts[0].folder}")
    with folder.held(out):
        number = 0
        for part in parts:
            for chunk in part.chunks:
                new = out / shards.CAPTURE.format(number)
                try:
                    os.link(chunk, new)
                except OSError:
                    shutil.copyfile(chunk, new)
                number += 1
        about = parts[0].about
        captures.write(out, about["names"], about["dtype"], about["model"], number)
    return Merged("captured", out, len(parts), sum(map(len, parts)))

"""OUT: a run's folder, which only one run writes to, and which a later one goes on with.

OUT/_corpus.json                what the run is: task, options, model, the files and the parts that they are cut into
OUT/part-00000.parquet …        a shard a part; of a capture OUT/chunk-00000.safetensors …
OUT/_errors.jsonl               the rows that failed, one object a line: written at the end of every run
OUT/capture.json                of a capture: what `internals.capture.Captured` reads

Names that begin with "_" are what readers of folders of Parquet pass over.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..system.files import JSONObject, lock, read_object, write_whole
from . import shards
from .inputs import Cut, Part, Source
from .job import IDS, TASKS, Job

FORMAT = "gpt2_np corpus 1"
ABOUT, ERRORS, CAPTURE = "_corpus.json", "_errors.jsonl", "capture.json"
WORDS = {
    "task": "task",
    "dtype": "dtype",
    "backend": "backend",
    "fingerprint": "model",
    "field": "field of text",
    "id_field": "field of ids",
    "ids": "kind of ids",
    "options": "set of options",
    "cut": "size of shards",
    "inputs": "corpus",
}


def described(job: Job, sources: Sequence[Source], cut: Cut) -> JSONObject:
    """Return everything that decides a run's results, as JSON has it. Where the input files lie doesn't."""
    inputs = [{name: value for name, value in source._asdict().items() if name != "path"} for source in sources]
    return json.loads(json.dumps(job.about() | {"cut": cut._asdict(), "inputs": inputs}))


def begin(out: Path, job: Job, sources: Sequence[Source], parts: Sequence[Part], cut: Cut) -> None:
    """Describe the run in its folder, or find it described there. ``ValueError`` says what else the folder holds."""
    what = described(job, sources, cut)
    path = out / ABOUT
    if not path.exists():
        others = [one.name for one in out.iterdir() if not one.name.endswith(".part")]
        if others:
            raise ValueError(f"{out} holds other files, such as {min(others)}; choose a new folder or an empty one")
        places = {"files": [source.path for source in sources], "parts": [list(part) for part in parts]}
        about = {"format": FORMAT, "model": job.model, **what, **places}
        write_whole(path, (json.dumps(about) + "\n").encode())
        return
    found = read(out)
    for name, value in what.items():
        if found.get(name) != value:
            raise ValueError(f"{out} holds a run with another {WORDS[name]}{difference(name, found, value)}; {ADVICE}")


ADVICE = "choose another folder, or give what was given then"


def difference(name: str, found: JSONObject, value: Any) -> str:
    """Return, for an error, what stands in the place of a value, if both are short."""
    if isinstance(value, dict) and isinstance(found.get(name), dict):
        before = found[name]
        name = next(one for one in [*value, *before] if value.get(one) != before.get(one))
        return f": {name} is {before.get(name)!r:.60} there, not {value.get(name)!r:.60}"
    if isinstance(value, str) and name != "fingerprint":
        return f": {found.get(name)!r:.60}, not {value!r:.60}"
    return ""


def read(out: Path) -> JSONObject:
    """Return the description of a folder's run. ``ValueError`` if it holds none, ``OSError`` if it can't be read."""
    if not (out / ABOUT).is_file():
        raise ValueError(f"{out} holds no run over a corpus: there is no {ABOUT} in it")
    found = read_object(out / ABOUT)
    if found.get("format") != FORMAT:
        raise ValueError(f"{out / ABOUT} must have the format {FORMAT!r}, got {found.get('format')!r:.60}")
    wrong = next((name for name, sound in SOUND.items() if name not in found or not sound(found[name])), None)
    if wrong is not None:
        raise ValueError(f"{out / ABOUT} doesn't describe a run: its {wrong} can't be {found.get(wrong)!r:.60}")
    return found


def numbers(value: Any, names: Sequence[str]) -> bool:
    """Tell whether a value is a list or an object of whole numbers of at least 0, as many as there are names."""
    given = [value.get(name) for name in names] if isinstance(value, dict) else value
    whole = isinstance(given, list) and all(type(one) is int and 0 <= one < 2**63 for one in given)
    return whole and len(given) == len(names)


def listed(sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return the test for a list whose elements pass a test."""
    return lambda value: isinstance(value, list) and all(map(sound, value))


# What every field of a description must be. Of merged runs that differ, some are null.
SOUND: dict[str, Callable[[Any], bool]] = {
    "task": lambda value: value in TASKS,
    **dict.fromkeys(("dtype", "backend", "fingerprint"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("field", "id_field"), lambda value: value is None or isinstance(value, str)),
    "ids": lambda value: value in IDS,
    "options": lambda value: isinstance(value, dict),
    "cut": lambda value: value is None or numbers(value, Cut._fields),
    "inputs": listed(lambda value: isinstance(value, dict) and numbers(value, ("rows",))),
    "files": listed(lambda value: isinstance(value, str)),
    "parts": listed(lambda value: numbers(value, Part._fields)),
}


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Make the folder if necessary and hold it for this run alone. ``ValueError`` if another run holds it."""
    out.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # where a folder can't be opened
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        if not lock(handle):
            raise ValueError(f"{out} is being written by another run; wait for it, or choose another folder")
        yield
    finally:
        os.close(handle)


def done(out: Path, task: str) -> dict[int, Path]:
    """Return the shards that exist, by their parts' numbers."""
    found = {}
    for path in out.glob(shards.PATTERNS[task]):
        number = path.stem.rpartition("-")[2]
        if number.isdigit():
            found[int(number)] = path
    return found


def sweep(out: Path) -> None:
    """Remove files that killed workers left half-written; nobody else writes here now."""
    for path in out.glob(".*.part"):
        path.unlink(missing_ok=True)


def write_errors(out: Path, errors: Sequence[JSONObject]) -> None:
    """Write the rows that failed in their order; without any, there is no file."""
    path = out / ERRORS
    if errors:
        lines = (f"{json.dumps(one, ensure_ascii=False)}\n" for one in sorted(errors, key=lambda one: one["row"]))
        write_whole(path, "".join(lines).encode("utf-8", "replace"))
    else:
        path.unlink(missing_ok=True)

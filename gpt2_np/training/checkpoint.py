"""Checkpoints: folders that are written atomically, and a run's folder that shows the newest one.

OUT/training.json          the run's settings, and a fingerprint of its text
OUT/checkpoint-STEP/       the newest model as transformers loads it, ``optimizer.safetensors``, ``progress.json``
OUT/model.safetensors …    the same model's files, so that OUT is a model's folder itself
OUT/loss.csv, samples.txt  one line a step; texts written on the way
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..model.config import Config
from ..model.params import Params, assemble, tensors
from ..system.files import read_json, read_text, unused, write_whole
from ..weights.load import open_safetensors
from ..weights.save import as_json, safetensors
from .optimizer import State

Array = np.ndarray
OPTIMIZER, PROGRESS, SETTINGS = "optimizer.safetensors", "progress.json", "training.json"


def named(tree: Params | Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a tree by name: `Params` by the official names, adapters by their own."""
    return tensors(tree) if isinstance(tree, Params) else dict(tree)


def write(out: Path, step: int, state: State, write_model: Callable[[Path], None]) -> Path:
    """Write a checkpoint's folder, which is renamed into place once it is complete; then remove older ones and update
    OUT.

    `write_model` writes the model's files into a folder. ``OSError`` names what can't be written (a full disk): then
    nothing is left of the new checkpoint, and the one before stays.
    """
    folder = out / f"checkpoint-{step}"
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        write_model(part)
        tensors = {
            f"{kind}.{name}": x for kind in ("mean", "square") for name, x in named(getattr(state, kind)).items()
        }
        write_whole(part / OPTIMIZER, safetensors(tensors))
        write_whole(part / PROGRESS, as_json({"step": step}))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    publish(out, folder)
    for old in folders(out)[:-1]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def folders(out: Path) -> list[Path]:
    """List the checkpoints of a run, the newest last."""
    found = [path for path in out.glob("checkpoint-*") if path.suffix != ".part" and (path / PROGRESS).is_file()]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """Return a checkpoint's step. ``ValueError`` if it doesn't say."""
    progress = read_json(folder / PROGRESS)
    step = progress.get("step") if isinstance(progress, dict) else None
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"{folder / PROGRESS} must hold a step of at least 0, got {step!r}")
    return step


def read_state(folder: Path, like: Any, config: Config) -> State:
    """Read a checkpoint's optimizer state, nested as `like`. ``ValueError`` for tensors that don't belong to it."""
    tensors = {name: x for name, (_, x) in open_safetensors(folder / OPTIMIZER).items()}
    trees = []
    for kind in ("mean", "square"):
        of_kind = {}
        for name, array in named(like).items():
            found = tensors.get(f"{kind}.{name}")
            if found is None or found.shape != array.shape:
                raise ValueError(f"{folder / OPTIMIZER}: {kind}.{name} must be there, of the shape {array.shape}")
            of_kind[name] = found.astype(array.dtype)
        trees.append(assemble(of_kind, config) if isinstance(like, Params) else of_kind)
    return State(step_of(folder), *trees)


def publish(out: Path, folder: Path) -> None:
    """Show a checkpoint's model in OUT itself: the same files as hard links, or as copies where links aren't
    possible.
    """
    for path in folder.iterdir():
        if path.name in (OPTIMIZER, PROGRESS):
            continue
        part = unused(out / path.name)
        try:
            os.link(path, part)
        except OSError:
            shutil.copyfile(path, part)
        os.replace(part, out / path.name)


def in_use(out: Path) -> bool:
    """Tell whether a folder holds anything but what a kill left of a file."""
    return out.is_dir() and any(path.suffix != ".part" for path in out.iterdir())


def append(path: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    """Append one line to a table; the first line also writes the column names."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(columns)
        writer.writerow(row)


def rows(table: Path) -> tuple[list[str], list[list[str]]]:
    """Return the column names of a loss curve and its lines, as texts; a file without a line has neither.

    Lines that a kill cut off, or that hold something other than numbers, are left out. ``ValueError`` names a file that
    is no loss curve.
    """
    head, *lines = read_text(table).splitlines() or [""]
    columns = head.split(",") if head else []
    if columns and columns[0] != "step":
        raise ValueError(f"{table} is not a loss curve: its first column must be 'step', got {columns[0]!r:.60}")
    cells = [line.split(",") for line in lines]
    return columns, [row for row in cells if len(row) == len(columns) and whole(row[0]) and all(map(number, row))]


def whole(text: str) -> bool:
    """Tell whether a text is the number of a step."""
    return text.isdecimal() and len(text) < 20


def number(cell: str) -> bool:
    """Tell whether a cell is empty, or holds a number."""
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True


def cut(out: Path, step: int) -> None:
    """Remove the lines of the loss curve and the samples after a step that is to be repeated."""
    table, samples = out / "loss.csv", out / "samples.txt"
    if table.is_file():
        columns, lines = rows(table)
        kept = [line for line in lines if int(line[0]) <= step]
        write_whole(table, "".join(f"{','.join(line)}\n" for line in [columns, *kept] if line).encode())
        if not columns:  # so that the next line comes below the columns' names
            table.unlink()
    if samples.is_file():
        written = samples.read_text(encoding="utf-8", errors="replace")
        marks = [part.partition("\n") for part in written.split("--- step ")[1:]]
        texts = [f"--- step {number}\n{text}" for number, _, text in marks if whole(number) and int(number) <= step]
        write_whole(samples, "".join(texts).encode())

"""Measure what changes a result, to the last bit, and write the tables of docs/determinism.md.

    python scripts/measure_determinism.py [--only writing|training]

Each row varies one thing. What varies within a process is run here (`determinism.answers`, `determinism.trained`); for
the number of threads, other processors and other processes this script starts itself again. Another processor is
stood in for by compiling for it and by telling OpenBLAS to take its kernels: slower code, the same instructions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import machine
from determinism import answers, trained
from determinism.compare import NOTHING, Difference, difference, worst

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "determinism.md"
Kind = tuple[str, str]
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma", "OPENBLAS_CORETYPE": "Haswell"}
OLD = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse,+sse2", "OPENBLAS_CORETYPE": "Core2"}


def threads(count: int) -> dict[str, str]:
    """An environment in which everything computes with so many threads."""
    return dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), str(count))


PLAIN = threads(1)  # but for the row about threads: on a busy machine several wait for each other


# A row: what varies, and the environments of the processes that are compared with the first of them.
PROCESSES: dict[str, list[dict[str, str]]] = {
    "another process; four at once": [PLAIN, PLAIN, PLAIN, PLAIN],
    "the number of threads: 1, 2, 5": [threads(1), threads(2), threads(5)],
    "a processor with AVX2 alone": [PLAIN, PLAIN | AVX2],
    "a processor without AVX (SSE2)": [PLAIN, PLAIN | OLD],
}
TRAINING_PROCESSES = {name: PROCESSES[name] for name in list(PROCESSES)[1:3]}
BESIDE = {
    "beside float64 with the kernels' backend": "precision",
    'beside `backend="numba"`': "backend",
    "beside torch and transformers, on one thread": "torch",
}


def child(part: str, kind: Kind, folder: Path, number: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """This script, started again to answer for one kind of model; what it finds goes into ``folder/number.npz``."""
    command = [sys.executable, __file__, "--answer", part, *kind, str(folder / f"{number}.npz")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path} | dict(environment))


def across(part: str, kind: Kind, environments: list[dict[str, str]]) -> Difference:
    """What processes in these environments found, each compared with the first; equal ones run at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if all(one == environments[0] for one in environments):
            groups = [list(enumerate(environments))]
        else:
            groups = [[one] for one in enumerate(environments)]
        for group in groups:
            for started in [child(part, kind, folder, number, environment) for number, environment in group]:
                if started.wait():
                    raise SystemExit(f"a process that answers for {kind} failed")
        found = [read(folder / f"{number}.npz") for number in range(len(environments))]
    return worst(difference(found[0], one) for one in found[1:])


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file."""
    with np.load(path) as file:
        return dict(file)


def answer(part: str, kind: Kind, path: str) -> None:
    """What a process started by `child` does."""
    model = answers.load(kind)
    found: dict[str, Any] = answers.answers(model) if part == "writing" else trained.learned(model)
    np.savez(path, **found)


def beside(what: str, kind: Kind) -> Difference | None:
    """One kind of model beside another; None where there is nothing to compare."""
    if what == "precision":
        other = ("float64", "numba")
        return None if kind == other else difference(answers.answers(answers.load(kind)), as_is(other))
    if what == "backend":
        return difference(as_is(kind), as_is((kind[0], "numba"))) if kind[1] == "numpy" else None
    if kind[0] not in ("float32", "float64") or find_spec("torch") is None or find_spec("transformers") is None:
        return None
    import torch

    from gpt2_np.text.gpt2 import on_torch

    torch.set_num_threads(1)
    return difference(answers.answers(answers.load(kind)), answers.answers(on_torch(dtype=kind[0])))


def as_is(kind: Kind) -> answers.Answers:
    """What a kind of model answers."""
    return answers.answers(answers.load(kind))


def writing() -> str:
    """The table of what is read and written."""
    rows: dict[str, list[Difference | None]] = {}
    for name, vary in answers.WITHIN.items():
        rows[name] = [vary(answers.load(kind), answers.LENGTH) for kind in answers.KINDS]
        told(name, rows[name])
    for name, environments in PROCESSES.items():
        rows[name] = [across("writing", kind, environments) for kind in answers.KINDS]
        told(name, rows[name])
    for name, what in BESIDE.items():
        rows[name] = [beside(what, kind) for kind in answers.KINDS]
        told(name, rows[name])
    return table(rows, answers.KINDS)


def training() -> str:
    """The table of what is learned."""
    rows: dict[str, list[Difference | None]] = {}
    for name, vary in trained.WITHIN.items():
        rows[name] = [vary(answers.load(kind)) for kind in trained.KINDS]
        told(name, rows[name])
    for name, environments in TRAINING_PROCESSES.items():
        rows[name] = [across("training", kind, environments) for kind in trained.KINDS]
        told(name, rows[name])
    mine, other = (trained.learned(answers.load(kind)) for kind in trained.KINDS[:2])
    rows['`backend="numpy"` beside `"numba"`'] = [None, difference(mine, other), None]
    return table(rows, trained.KINDS)


def told(name: str, row: list[Difference | None]) -> None:
    """One row on stderr, so that whoever waits sees something."""
    print(f"{name}: {' | '.join(map(str, row))}", file=sys.stderr, flush=True)


def title(kind: Kind) -> str:
    """A column's head."""
    return f"{kind[0]}, NumPy" if kind[1] == "numpy" else kind[0]


def table(rows: dict[str, list[Difference | None]], kinds: tuple[Kind, ...]) -> str:
    """The rows as Markdown."""
    lines = [f"| what varies | {' | '.join(map(title, kinds))} |", f"|---|{'---|' * len(kinds)}"]
    for name, row in rows.items():
        cells = [NOTHING if one is None else str(one) for one in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def put(page: str, marker: str, text: str) -> str:
    """A page with a text between ``<!-- marker -->`` and ``<!-- end of marker -->``."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end of {marker} -->)"
    fresh, count = re.subn(pattern, lambda found: f"{found[1]}{text}{found[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{PAGE.name} must have one pair of markers {marker}, got {count}")
    return fresh


def main(arguments: list[str]) -> None:
    """Measure, and write the page."""
    if arguments[:1] == ["--answer"]:
        part, dtype, backend, path = arguments[1:]
        answer(part, (dtype, backend), path)
        return
    if any(os.environ.get(name) != value for name, value in PLAIN.items()):  # libraries read it when they are loaded
        os.execve(sys.executable, [sys.executable, __file__, *arguments], os.environ | PLAIN)
    only = arguments[1] if arguments[:1] == ["--only"] else ""
    for part, measure in (("writing", writing), ("training", training)):
        if only in ("", part):
            text = f"Measured on {machine.name()}, {time.strftime('%B %Y')}.\n\n{measure()}"
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), part, text), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure what changes a result, to the last bit, and write the tables of docs/determinism.md.

    python scripts/measure_determinism.py [writing|training [ROW…]]

Each row varies one thing. A row is written into the page as soon as it is measured, so a run may be stopped, and the
rest of the rows measured later by their numbers (from 1): on the same machine, or the page would mix two. What varies
within a process is run here (`determinism.answers`, `determinism.trained`); for the number of threads, other processors
and other processes this script starts itself again. To stand in for another processor, kernels are compiled for it and
OpenBLAS is told to take its own for it: the code is slower, and its instructions are the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import machine
from determinism import answers, trained
from determinism.compare import NOTHING, UNMEASURED, Difference, difference, worst

from gpt2_np import GPT2

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


def across(part: str, environments: list[dict[str, str]], kind: Kind) -> Difference:
    """Compare the answers of processes in these environments with those of the first; equal ones run at once."""
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
    """Compute the answers in a process started by `child`."""
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
    """Return the answers of a kind of model."""
    return answers.answers(answers.load(kind))


def rows(part: str) -> dict[str, Callable[[], list[Difference | None]]]:
    """Return for each row of a part's table the function that measures its cells, one for each kind of model."""
    kinds: tuple[Kind, ...] = answers.KINDS if part == "writing" else trained.KINDS
    if part == "writing":
        return {
            **{name: partial(by_kind, kinds, partial(alone, vary)) for name, vary in answers.WITHIN.items()},
            **{name: partial(by_kind, kinds, partial(across, part, among)) for name, among in PROCESSES.items()},
            **{name: partial(by_kind, kinds, partial(beside, what)) for name, what in BESIDE.items()},
        }
    among = TRAINING_PROCESSES.items()
    return {
        **{name: partial(by_kind, kinds, partial(learning, vary)) for name, vary in trained.WITHIN.items()},
        **{name: partial(by_kind, kinds, partial(across, part, environments)) for name, environments in among},
        '`backend="numpy"` beside `"numba"`': backends,
    }


def by_kind(kinds: tuple[Kind, ...], measure: Callable[[Kind], Difference | None]) -> list[Difference | None]:
    """A row: one measurement for each kind of model."""
    return [measure(kind) for kind in kinds]


def alone(vary: answers.Within, kind: Kind) -> Difference:
    """Measure a variation within this process, of what is read and written."""
    return vary(answers.load(kind), answers.LENGTH)


def learning(vary: Callable[[GPT2], Difference], kind: Kind) -> Difference:
    """Measure a variation within this process, of what is learned."""
    return vary(answers.load(kind))


def backends() -> list[Difference | None]:
    """Compare what is learned with the two backends."""
    mine, other = (trained.learned(answers.load(kind)) for kind in trained.KINDS[:2])
    return [None, difference(mine, other), None]


def measure(part: str, numbers: list[int]) -> None:
    """Measure these rows of a part (all of them where none is named), and write each into the page when it is known."""
    every = list(rows(part).items())
    if any(not 1 <= number <= len(every) for number in numbers):
        raise SystemExit(f"{part} has rows 1 to {len(every)}, got {' '.join(map(str, numbers))}")
    for number in numbers or range(1, len(every) + 1):
        name, found = every[number - 1]
        cells = [NOTHING if one is None else str(one) for one in found()]
        print(f"{number} {name}: {' | '.join(cells)}", file=sys.stderr, flush=True)
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(put(page, part, with_row(between(page, part), name, cells)), encoding="utf-8")


def title(kind: Kind) -> str:
    """A column's head."""
    return f"{kind[0]}, NumPy" if kind[1] == "numpy" else kind[0]


def with_row(text: str, name: str, cells: list[str]) -> str:
    """A part's text with the cells of one row, and with the machine and the month of this measurement."""
    lines = text.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith(f"| {name} |"))
    lines[at] = f"| {name} | {' | '.join(cells)} |"
    lines[0] = f"Measured on {machine.name()}, {time.strftime('%B %Y')}."
    return "\n".join(lines) + "\n"


def empty(part: str) -> str:
    """A part's text before anything was measured."""
    kinds = answers.KINDS if part == "writing" else trained.KINDS
    head = [f"| what varies | {' | '.join(map(title, kinds))} |", f"|---|{'---|' * len(kinds)}"]
    return "\n".join(["", "", *head, *(f"| {name} |{f' {UNMEASURED} |' * len(kinds)}" for name in rows(part)), ""])


def between(page: str, marker: str) -> str:
    """The text of a page between ``<!-- marker -->`` and ``<!-- end of marker -->``."""
    found = re.findall(rf"<!-- {marker} -->\n(.*?)<!-- end of {marker} -->", page, re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"{PAGE.name} must have one pair of markers {marker}, got {len(found)}")
    return str(found[0])


def put(page: str, marker: str, text: str) -> str:
    """A page with another text between its markers."""
    return page.replace(between(page, marker), text, 1)


def main(arguments: list[str]) -> None:
    """Measure, and write the page."""
    if arguments[:1] == ["--answer"]:
        part, dtype, backend, path = arguments[1:]
        answer(part, (dtype, backend), path)
        return
    if arguments and (arguments[0] not in ("writing", "training") or not all(one.isdigit() for one in arguments[1:])):
        raise SystemExit((__doc__ or "").split("\n\n")[1])
    if any(os.environ.get(name) != value for name, value in PLAIN.items()):  # libraries read it when they are loaded
        os.execve(sys.executable, [sys.executable, __file__, *arguments], os.environ | PLAIN)
    for part in arguments[:1] or ("writing", "training"):
        if not arguments[1:]:
            PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), part, empty(part)), encoding="utf-8")
        measure(part, [int(one) for one in arguments[1:]])
    print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Rounds: every engine answers the same request once in each round, so that a slow minute affects all of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE = 0.5  # seconds: thread pools wait for more work by spinning, the longest of these for 0.2
ENGINES = Path(__file__).parent / "engines.py"


class Process:
    """One engine at one precision, loaded in a process of its own."""

    def __init__(self, engine: str, precision: str, folder: Path) -> None:
        self.name = f"{engine} {precision}".rstrip()
        command = [sys.executable, str(ENGINES), engine, precision, str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answer()

    def ask(self, work: str, **question: Any) -> Any:
        """Seconds that this work took, asked for once the threads of whoever had the last turn have gone to sleep.

        One number, but for an engine that has several to tell.
        """
        time.sleep(PAUSE)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"work": work, **question}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} stopped with exit status {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(BrokenPipeError):
            self.process.communicate()


def medians(processes: list[Process], rounds: int, work: str, **question: Any) -> dict[str, float]:
    """Each engine's median seconds over some rounds, behind one that isn't counted; without those that broke down."""
    taken: dict[str, list[float]] = {process.name: [] for process in processes}
    for round_ in range(rounds + 1):
        for process in processes:
            if process.name not in taken:
                continue
            try:
                seconds = process.ask(work, **question)
            except (RuntimeError, BrokenPipeError) as error:
                print(f"left out: {process.name}: {error}", file=sys.stderr)
                del taken[process.name]
                continue
            if round_:
                taken[process.name].append(seconds)
    return {name: statistics.median(kept) for name, kept in taken.items()}

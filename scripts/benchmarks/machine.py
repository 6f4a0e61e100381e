"""The machine: its name, timing on it, and its memory bandwidth."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba import prange


def name() -> str:
    """The machine, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        vectors = [vector for flag, vector in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags]
        cpu = f"{cpu} ({vectors[0]})" if vectors else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counted = f"{cores} core{'s' if cores != 1 else ''}"  # not Numba's threads, which an experiment may have limited
    return f"{cpu}, {counted}, {platform.system()}, Python {platform.python_version()}"


def median(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the median run, after one that isn't counted."""
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def forget(folder: Path) -> None:
    """Have the system drop its copies of a folder's files, so that every engine finds them as after a restart.

    What was just written lies in small pages of memory; what is read from the disk may lie in large ones, and does
    where Linux reads it for a mapping that asks for them.
    """
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@numba.njit(parallel=True, fastmath=True)
def read_all(x: np.ndarray, out: np.ndarray) -> None:
    """Read all of a matrix, as fast as all threads can, and add it up so that nobody can skip it.

    Each thread reads one piece of memory from end to end. (Several rows at once were up to a fifth slower.)
    """
    for part in prange(len(out)):
        total = np.float32(0)
        for row in range(part * len(x) // len(out), (part + 1) * len(x) // len(out)):
            for i in range(x.shape[1]):
                total += x[row, i]
        out[part] = total

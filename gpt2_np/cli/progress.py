"""What long work shows on stderr, where that is a terminal."""

from __future__ import annotations

import sys
import threading
from typing import Any


def compiling(model: Any) -> None:
    """Load the kernels, and say so when that takes long: they are compiled once on a machine, which takes seconds."""
    if getattr(model, "backend", None) != "numba":
        return
    told = threading.Timer(1.0, _tell)
    if sys.stderr.isatty():
        told.start()
    from .. import kernels as kernels

    if told.is_alive():
        told.cancel()
    elif sys.stderr.isatty():
        print("\r\033[K", end="", flush=True, file=sys.stderr)


def _tell() -> None:
    print("compiling the kernels, this once … ", end="", flush=True, file=sys.stderr)


def bar(total: int, unit: str) -> Any:
    """A progress bar on stderr, shown on a terminal only."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None, leave=False)

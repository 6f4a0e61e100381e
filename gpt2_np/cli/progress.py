"""What long work shows on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from typing import Any


def compiling(model: Any) -> None:
    """Compile the kernels now if this machine has not yet, and say so: it takes seconds, once."""
    if getattr(model, "backend", None) != "numba":
        return
    from .. import kernels

    if kernels.compiled():
        return
    terminal = sys.stderr.isatty()
    if terminal:
        print("compiling kernels, this once … ", end="", flush=True, file=sys.stderr)
    kernels.warm_up()
    if terminal:
        print("\r\033[K", end="", flush=True, file=sys.stderr)


def bar(total: int, unit: str) -> Any:
    """A progress bar on stderr, shown on a terminal only."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None, leave=False)

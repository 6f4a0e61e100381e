"""What long work shows on stderr, where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any


def compiling(model: Any) -> None:
    """Load the kernels, and say so when that takes long: they are compiled once on a machine, which takes seconds."""
    if getattr(model, "backend", None) != "numba":
        return
    told = threading.Timer(1.0, _tell)
    if sys.stderr.isatty():
        told.start()
    with hidden("scipy"):
        from .. import kernels as kernels

    if told.is_alive():
        told.cancel()
    elif sys.stderr.isatty():
        print("\r\033[K", end="", flush=True, file=sys.stderr)


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """As if a package that isn't loaded yet were not installed.

    Numba loads SciPy's linear algebra where it is installed, a quarter of a second, for products that no kernel here
    leaves to it.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        del sys.modules[package]


def _tell() -> None:
    print("compiling the kernels, this once … ", end="", flush=True, file=sys.stderr)


def bar(total: int, unit: str) -> Any:
    """A progress bar on stderr, shown on a terminal only."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None, leave=False)

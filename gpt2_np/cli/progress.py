"""What long work shows on stderr, where that is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm


def compiling(model: object) -> None:
    """Load the kernels, and say so when that takes long: they are compiled once on a machine, which takes seconds."""
    if getattr(model, "backend", None) != "numba":
        return
    told = threading.Timer(1.0, _tell)
    if sys.stderr.isatty():
        told.start()
    with hidden(*unneeded()):
        from ..engine import kernels as kernels

    if told.is_alive():
        told.cancel()
    elif sys.stderr.isatty():
        print("\r\033[K", end="", flush=True, file=sys.stderr)


def unneeded() -> list[str]:
    """Packages that Numba loads where they are installed, and that no kernel here needs.

    SciPy's linear algebra takes a quarter of a second, for products that no kernel leaves to it; PyYAML reads Numba's
    configuration file, where there is one.
    """
    return ["scipy"] if os.path.exists(".numba_config.yaml") else ["scipy", "yaml"]


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """As if those of the packages that aren't loaded yet were not installed."""
    hiding = [package for package in packages if package not in sys.modules]
    sys.modules |= dict.fromkeys(hiding)  # type: ignore[arg-type]  # None: Python's own way to say so
    try:
        yield
    finally:
        for package in hiding:
            del sys.modules[package]


def _tell() -> None:
    print("compiling the kernels, this once … ", end="", flush=True, file=sys.stderr)


def bar(total: int, unit: str) -> tqdm[NoReturn]:
    """A progress bar on stderr, shown on a terminal only."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None, leave=False)

"""Progress of long work on stderr, if that is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..session.model import Model

COMPILING = "compiling the kernels, this once"


def compiling(model: Model) -> None:
    """Load the compiled forward pass; if it must be compiled, once on a machine and in seconds, a terminal is told."""
    if model.backend != "numba":
        return
    from ..engine.kernels import code_cache

    told: list[str] = []

    def tell() -> None:
        if not told and sys.stderr.isatty():
            told.append(COMPILING)
            print(f"{COMPILING} … ", end="", flush=True, file=sys.stderr)

    code_cache.watchers.append(tell)
    try:
        with hidden(*unneeded()):
            getattr(model.implementation, "step", None)  # it is loaded when it is first asked for
    finally:
        code_cache.watchers.remove(tell)
    if told:
        print("\r\033[K", end="", flush=True, file=sys.stderr)


def unneeded() -> list[str]:
    """Return packages that Numba loads if they are installed, and that no kernel here needs.

    SciPy's linear algebra takes a quarter of a second, for products that no kernel leaves to it; PyYAML reads Numba's
    configuration file, where there is one.
    """
    return ["scipy"] if os.path.exists(".numba_config.yaml") else ["scipy", "yaml"]


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make those of the packages that aren't loaded yet look as if they were not installed, inside the block."""
    hiding = [package for package in packages if package not in sys.modules]
    sys.modules |= dict.fromkeys(hiding)  # type: ignore[arg-type]  # None: Python's own way to say so
    try:
        yield
    finally:
        for package in hiding:
            del sys.modules[package]


def bar(total: int | None, unit: str, bar_format: str | None = None) -> tqdm[NoReturn] | NoBar:
    """A progress bar on stderr, shown on a terminal only, and where tqdm is installed; else one that shows nothing.

    `bar_format` is tqdm's.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return NoBar()
    return tqdm(total=total, unit=unit, disable=None, leave=False, bar_format=bar_format)


class NoBar(contextlib.nullcontext["NoBar"]):
    """A progress bar that shows nothing."""

    n = 0
    total: float | None = None

    def __enter__(self) -> NoBar:
        return self

    def update(self, more: int = 1) -> None:
        """So much more is done."""

    def set_postfix_str(self, text: str) -> None:
        """A word beside the bar."""

    def write(self, text: str, file: TextIO | None = None) -> None:
        """A text above the bar."""
        print(text, file=file)

    def close(self) -> None:
        """Take the bar away."""

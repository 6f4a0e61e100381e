"""The test whether Numba is available. Without it everything runs in NumPy (`threaded`), after one line of warning."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal

from ..model.choices import BACKENDS
from ..system.garbage import without_garbage_collection

Backend = Literal["numba", "numpy"]


def chosen(asked: str | None) -> Backend:
    """Return the backend of this name; for None, "numba" if Numba is installed, else "numpy" with a warning.

    ``ValueError`` for any other name, and for "numba" if it isn't installed.
    """
    for name in BACKENDS:
        if asked == name and (name != "numba" or installed()):
            return name
    if asked is None:
        return default()
    if asked == "numba":
        raise ValueError("backend 'numba' needs Numba, which is not installed: pip install numba")
    raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {asked!r}")


def default() -> Backend:
    """Return "numba" if Numba is installed, else "numpy" with a warning."""
    if installed():
        return "numba"
    warn("is not installed")
    return "numpy"


def installed() -> bool:
    """Tell whether a package named numba exists; it is searched for, not loaded."""
    from importlib.util import find_spec

    try:
        found = find_spec("numba")
    except ValueError:  # a module without a spec, such as a test's stub
        return True
    return found is not None and found.submodule_search_locations is not None


@lru_cache(maxsize=1)
def loads() -> bool:
    """Load Numba, and tell whether that worked; if not (a NumPy that is too new, for example), a warning says why."""
    try:
        with without_garbage_collection():
            import numba  # noqa: F401
    except ImportError as error:
        warn(f"can't be loaded ({' '.join(str(error).split()) or type(error).__name__})")
        return False
    return True


@lru_cache(maxsize=1)
def warn(why: str) -> None:
    """Issue a ``RuntimeWarning``, once per process."""
    warnings.warn(f"Numba {why}: backend 'numpy' is used, which is slower", RuntimeWarning, stacklevel=2)

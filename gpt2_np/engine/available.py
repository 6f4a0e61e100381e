"""Whether Numba is there. Where it isn't, everything runs in NumPy (`threaded`), after one line of warning."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal

from ..model.choices import BACKENDS
from ..system.garbage import without_garbage_collection

Backend = Literal["numba", "numpy"]


def chosen(asked: str | None) -> Backend:
    """The backend of this name; for None "numba" where Numba is installed, else "numpy", of which a warning tells.

    ``ValueError`` for any other name, and for "numba" where it isn't installed.
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
    """ "numba" where Numba is installed, else "numpy", of which a warning tells."""
    if installed():
        return "numba"
    warn("is not installed")
    return "numpy"


def installed() -> bool:
    """Whether there is a package of Numba's name: it is found, not loaded."""
    from importlib.util import find_spec

    try:
        found = find_spec("numba")
    except ValueError:  # a module that was made by hand
        return True
    return found is not None and found.submodule_search_locations is not None


@lru_cache(maxsize=1)
def loads() -> bool:
    """Whether Numba can be loaded, which happens here; if not, as beside a NumPy too new for it, a warning says why."""
    try:
        with without_garbage_collection():
            import numba  # noqa: F401
    except ImportError as error:
        warn(f"can't be loaded ({' '.join(str(error).split()) or type(error).__name__})")
        return False
    return True


@lru_cache(maxsize=1)
def warn(why: str) -> None:
    """One ``RuntimeWarning``, once in a process."""
    warnings.warn(f"Numba {why}: backend 'numpy' is used, which is slower", RuntimeWarning, stacklevel=2)

"""The check that the installed `decoders` package is this project's: PyPI has another package of that name."""

from __future__ import annotations

from pathlib import Path

MARK = 'PROJECT = "gpt2-np"'
"""A line of ``decoders/__init__.py`` by which it is known."""


def foreign_decoders() -> str | None:
    """Return a sentence that says which other `decoders` was found, and what to do; None if it is this project's.

    The package is looked at and not imported. Call this after an import has failed, so that it costs nothing otherwise.
    """
    from importlib.util import find_spec

    try:
        found = find_spec("decoders")
    except ValueError:  # a module without a spec
        return None
    if found is None:
        return "the package 'decoders', which is a part of gpt2-np, is missing: install gpt2-np again"
    try:
        if found.origin is not None and MARK in Path(found.origin).read_text(encoding="utf-8", errors="replace"):
            return None
    except OSError:  # a module in an archive
        return None
    where = found.origin or next(iter(found.submodule_search_locations or ()), "somewhere")
    return (
        f"the package 'decoders' that Python finds is {where}, not the one that comes with gpt2-np: another package of "
        "this name is installed or lies on the path before it; take that away (pip uninstall decoders), then install "
        "gpt2-np again, or use an environment of its own"
    )

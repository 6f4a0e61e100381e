"""The sources that compiled code depends on: a module's file and all files that it imports, as one digest."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
# A relative import wherever it stands: a function may import late what its compiled code calls.
IMPORT = re.compile(r"^[ \t]*from[ \t]+(\.+)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)", re.MULTILINE)


@cache
def digest(path: Path) -> str:
    """Return a digest (16 hexadecimal digits) of a file of this package and of all files that it imports, however
    indirectly.

    Compiled code depends on all of them, because Numba inlines called kernels and freezes the constants that they read.
    ``OSError`` if a source can't be read.
    """
    whole = hashlib.sha256()
    for file in sorted(reached(path)):
        whole.update(f"{file.relative_to(PACKAGE).as_posix()}\0{_read(file)[0]}\0".encode())
    return whole.hexdigest()[:16]


def reached(path: Path) -> set[Path]:
    """Return the file and every file of this package that it imports, directly or indirectly."""
    found, waiting = {path}, [path]
    while waiting:
        for file in _read(waiting.pop())[1]:
            if file not in found:
                found.add(file)
                waiting.append(file)
    return found


@cache
def _read(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the digest of a file's content, and the files of this package that it imports directly."""
    content = path.read_bytes()
    imported: list[Path] = []
    for dots, module, names in IMPORT.findall(content.decode("utf-8")):
        base = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        if _exists(base.with_suffix(".py")):
            imported.append(base.with_suffix(".py"))
        else:  # a package: its modules, or what its __init__ defines
            imported += [_module(base / name) or base / "__init__.py" for name in re.findall(r"\w+", names)]
    return hashlib.sha256(content).hexdigest(), tuple(imported)


def _module(path: Path) -> Path | None:
    """Return the file of the module or package at this path; None if there is none."""
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if _exists(file):
            return file
    return None


@cache
def _exists(path: Path) -> bool:
    return path.is_file()

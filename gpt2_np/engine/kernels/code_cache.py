"""The folder that keeps compiled code between processes, and the check of who may have written to it.

Compiled code has Numba's own format, a pickle: whoever can write to the folder can run code as the user who reads it.
So files that belong to another user, or that others may write to, are never read, and everything written here is
accessible to its owner only. A damaged file counts as missing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

KEPT = 6  # versions of a module's code that are kept: several checkouts and targets may take turns
CHECKSUM = hashlib.sha256().digest_size


def place(chosen: str | None) -> Path:
    """Return the folder for compiled code: under the `chosen` one (Numba's setting) if there is one, else in the user's
    cache.

    ``OSError`` if the user has no home folder.
    """
    if chosen:
        return Path(chosen).absolute() / "gpt2_np"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else _home() / "AppData" / "Local") / "gpt2_np" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "gpt2_np"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else _home() / ".cache") / "gpt2_np"


def _home() -> Path:
    home = os.path.expanduser("~")
    if not os.path.isdir(home):
        raise OSError("there is no home folder")
    return Path(home)


def trusted(status: os.stat_result) -> bool:
    """Tell whether a file or folder belongs to this user and nobody else may write to it."""
    if not hasattr(os, "geteuid"):  # Windows, where a user's own folders are closed to others
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def check(folder: Path) -> None:
    """Raise ``PermissionError``, which says why, if a folder exists and is not trusted."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return
    if not trusted(status):
        raise PermissionError("it belongs to another user, or others may write to it")


def read(path: Path) -> bytes | None:
    """Return what `write` stored; None if it is missing, damaged, or another user's."""
    try:
        with open(path, "rb") as file:
            if not trusted(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    sound = hashlib.sha256(content[CHECKSUM:]).digest() == content[:CHECKSUM]
    return content[CHECKSUM:] if sound else None


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, readable by this user only, and make its folder. ``OSError`` if that fails."""
    folder, root = path.parent, path.parent.parent
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh = not folder.is_dir()
    for one in (root, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        check(one)
    part = folder / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
    if fresh:
        prune(root, folder.name)


def prune(root: Path, newest: str) -> None:
    """Remove a module's oldest versions, except the KEPT most recently used; `newest` is called ``MODULE-…``."""
    with suppress(OSError):  # another process may be pruning too
        module = newest.rpartition("-")[0]
        versions = [folder for folder in root.iterdir() if folder.name.rpartition("-")[0] == module]
        versions.sort(key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
        for folder in versions[KEPT:]:
            if folder.name != newest:
                shutil.rmtree(folder, ignore_errors=True)


@cache
def used(folder: Path) -> None:
    """Record, once per process, that a version is in use: `prune` goes by that time."""
    with suppress(OSError):
        os.utime(folder)


def say_uncached(place: str, reason: str) -> None:
    """Print one line on stderr, only the first time in a process: what prevents one file usually prevents all."""
    if not _said:
        _said.append(place)
        print(
            f"gpt2_np: compiled code can't be kept in {place} ({reason}), so every start compiles anew; "
            "NUMBA_CACHE_DIR can name another folder",
            file=sys.stderr,
        )


_said: list[str] = []

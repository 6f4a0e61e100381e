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
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from ...system.cache_folder import check as check
from ...system.cache_folder import place as place
from ...system.cache_folder import trusted

KEPT = 6  # versions of a module's code that are kept: several checkouts and targets may take turns
CHECKSUM = hashlib.sha256().digest_size
watchers: list[Callable[[], object]] = []  # what is called before a kernel is compiled


def announce() -> None:
    """Tell the watchers that something must be compiled, which takes seconds."""
    for tell in watchers:
        tell()


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

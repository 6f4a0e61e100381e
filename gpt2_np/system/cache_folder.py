"""The folder where this package keeps what it can make again, and who is trusted to have written it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


def place(chosen: str | None = None) -> Path:
    """Return the package's folder: under the `chosen` one if there is one, else in the user's cache. Nothing is made.

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

"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash, a kill or a full disk leaves either the old one or the new one.

    ``OSError`` names the file when it can't be written; what was begun is removed. A device or a pipe (``/dev/stdout``)
    is written to as it is.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None

"""Atomic file writes, JSON from untrusted files, and mapped files."""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import in_words

JSONObject = dict[str, Any]  # a parsed JSON object, or one to be written: only its reader knows what its values are


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; ``ValueError`` names the file if it is broken in any way."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON, a number of thousands of digits
        raise ValueError(pretender(path) or f"{path} is not valid JSON: {in_words(error)}") from None


def read_object(path: Path) -> JSONObject:
    """Return the object in a JSON file; ``ValueError`` names the file if it is broken or holds anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        kind = "null" if content is None else type(content).__name__
        raise ValueError(f"{path} must hold a JSON object, got {kind}")
    return content


def read_text(path: Path) -> str:
    """Return a text file's content; ``ValueError`` names the file and the first byte that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text; byte {error.start} is not") from None


def pretender(path: Path) -> str | None:
    """Return what an unreadable file really is: a Git LFS pointer, a web page; None if its beginning is neither.

    ``OSError`` if it can't be opened.
    """
    with path.open("rb") as file:
        start = file.read(100).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the file itself; fetch that with: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return f"{path} is a web page, not the file itself; download it again"
    return None


def lock(file: int | IO[bytes], *, wait: bool = False) -> bool:
    """Lock an open file or folder against other processes until it is closed; return False if another one holds it.

    With `wait` the lock is waited for. On Windows, and on file systems without locks, there is none to be held.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def shards(index: Path) -> list[str]:
    """Return the files that a ``model.safetensors.index.json`` names; ``ValueError`` for one that isn't beside it."""
    try:
        names = set(read_json(index)["weight_map"].values())
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} must hold a JSON object with a weight_map of names to files") from None
    for name in names:
        if not isinstance(name, str) or name in ("", "..") or "\0" in name or Path(name).name != name:
            raise ValueError(f"{index}: a shard must be a file beside the index, got {name!r}")
    return sorted(names)


def write_whole(path: Path, content: bytes | Iterable[Any]) -> None:
    """Write a file atomically: a crash, a kill or a full disk leaves either the old file or the new one.

    `content` is the file's bytes, or pieces of them (bytes, contiguous arrays) that are written in sequence.
    ``OSError`` names the file if it can't be written; the partial file, which has its own name, is removed. A device or
    a pipe (``/dev/stdout``) is written directly.
    """
    path = resolved(path)
    part = unused(path)
    pieces: Iterable[Any] = [content] if isinstance(content, bytes) else content
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                file.writelines(pieces)
            return
        with open(part, "xb") as file:  # never an existing file or a link's target
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def resolved(path: Path) -> Path:
    """Return a path without links. ``OSError`` names one whose links lead in a circle."""
    found = Path(os.path.realpath(path))
    if found.is_symlink():  # `Path.resolve` raises RuntimeError here, in some versions of Python
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return found


def unused(path: Path) -> Path:
    """Return an unused name beside a file, ending in ``.part``, for a file that is renamed once it is complete."""
    return path.with_name(f".{path.name[:40]}.{os.urandom(8).hex()}.part")


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic of a library written in Rust into a ``ValueError`` with the panic's message.

    A panic reaches Python as a BaseException, which no ``except Exception`` catches, and its text is also written to
    stderr; that is suppressed where no other thread could lose its own output.
    """
    alone, kept = threading.active_count() == 1, None
    if alone:
        with suppress(OSError):  # a process without stderr
            kept = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(" ".join(str(error).split()) or "its reader gave up") from None
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)


SMALL = 1 << 20  # bytes up to which a file is read, not mapped: truncating a mapped file kills the process


def mapped(path: Path, *, large_pages: bool) -> np.ndarray:
    """Return a file's bytes, read-only: mapped into memory, or read if the file is small.

    Linux can back a mapping with large pages when it reads the file from disk, which makes access faster. Without
    `large_pages` only the touched parts count as the process's memory.
    """
    if path.stat().st_size <= SMALL:
        return np.frombuffer(path.read_bytes(), np.uint8)
    data = np.memmap(path, np.uint8, mode="r")
    if hasattr(mmap, "MADV_HUGEPAGE") and isinstance(data.base, mmap.mmap):
        with suppress(OSError):  # a kernel built without large pages
            data.base.madvise(mmap.MADV_HUGEPAGE if large_pages else mmap.MADV_NOHUGEPAGE)
    return np.asarray(data)


def release_pages(tensor: np.ndarray) -> None:
    """Unmap the pages of a tensor that is mapped from a file, until it is read again; other tensors are unaffected.

    The pages stay in the system's page cache and are only no longer counted as this process's.
    """
    whole: object = tensor
    while isinstance(whole, np.ndarray):
        mapped, whole = whole, whole.base
    if isinstance(whole, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        start = tensor.ctypes.data - mapped.ctypes.data
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # a page that another tensor shares stays mapped
        length = (start + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            whole.madvise(mmap.MADV_DONTNEED, first, length)

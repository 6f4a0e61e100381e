"""Standard streams that may be closed, full, without a reader, or unable to encode a character."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The substitutes for characters that a stream's encoding lacks; others become "?".
SUBSTITUTES = {
    "█": "#",
    "−": "-",
    "→": ">",
    "·": ".",
    "…": ".",
    "↵": "$",
    "⇥": ">",
    "∅": "0",
    "×": "x",
    "–": "-",
    "—": "-",
}
HANDLER = "gpt2_np.nearest"


def nearest(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: replace characters by similar ones of the same width."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SUBSTITUTES.get(one, "?") for one in error.object[error.start : error.end]), error.end


class Forgiving:
    """Standard error, which may be closed or full: output that can't be written is dropped, and work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """All of it is taken."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is left in the buffer."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def fill() -> None:
    """Open closed standard streams on the null device, so that no file that is opened later takes their numbers.

    Reading from the one and writing to the other of them fails as it would have.
    """
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        try:
            os.fstat(number)
        except OSError:
            wrong_way = os.O_WRONLY if mode == "r" else os.O_RDONLY
            opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else wrong_way)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextlib.contextmanager
def standard() -> Iterator[None]:
    """Standard output degrades rather than fails where its encoding lacks a character; standard error never fails."""
    codecs.register_error(HANDLER, nearest)
    output, errors = sys.stdout, sys.stderr
    lossless = codecs.lookup(getattr(output, "encoding", None) or "utf-8").name == "utf-8"
    if hasattr(output, "reconfigure") and not (lossless and output.errors == "surrogateescape"):
        output.reconfigure(errors=HANDLER)
    if not isinstance(errors, Forgiving):
        sys.stderr = Forgiving(errors)
    try:
        yield
    finally:
        sys.stderr = errors
        try:
            errors.flush()
        except (OSError, ValueError):
            discard(errors)  # Python would try again at exit, and turn the exit status into 120


def gone() -> int:
    """Return the exit status for a standard output that nobody reads any more (``| head``): nothing is wrong."""
    discard()
    return 128 + signal.SIGPIPE


def of_output(error: OSError) -> bool:
    """Tell whether an error is standard output's: errors of files name them."""
    return error.filename is None and error.errno in (*FULL, errno.EBADF, errno.EIO)


def discard(stream: TextIO | None = None) -> None:
    """Discard what a stream still buffers, so that Python doesn't complain at exit."""
    stream = sys.stdout if stream is None else stream
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()

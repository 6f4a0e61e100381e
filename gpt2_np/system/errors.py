"""Errors as one line, for a terminal or a JSON reader."""

from __future__ import annotations

MOST = 1000  # characters of a line


def in_words(error: BaseException) -> str:
    """Return an error's text; the system's becomes "NAME: reason", a codec's "byte N is not UTF-8"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding.upper()}"
    if str(error) == "embedded null byte":
        return "a file's name must not hold a NUL character"
    return str(error) or type(error).__name__


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print: control characters are escaped, the middle of a long text is
    cut.

    Text from files and from the command line may hold anything, and a terminal executes control characters.
    """
    words = " ".join(text.split())
    if len(words) > MOST:
        words = f"{words[: MOST * 2 // 3]} … {words[-MOST // 3 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)

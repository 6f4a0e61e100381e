"""Errors in one line, for a person at a terminal or a reader of JSON."""

from __future__ import annotations

MOST = 1000  # characters of a line


def in_words(error: BaseException) -> str:
    """An error's text, the operating system's as "NAME: reason"."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if str(error) == "embedded null byte":
        return "a file's name must not hold a NUL character"
    return str(error) or type(error).__name__


def one_line(text: str) -> str:
    """A text in one line that a terminal can be shown: control characters escaped, the middle of a long one left out.

    What comes from files and from the command line may hold anything; a terminal obeys what is not printable.
    """
    words = " ".join(text.split())
    if len(words) > MOST:
        words = f"{words[: MOST * 2 // 3]} … {words[-MOST // 3 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)

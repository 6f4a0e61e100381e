"""Texts to study a model on, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Encoder(Protocol):
    """What turns text into ids."""

    def encode(self, text: str) -> list[int]: ...


def read_corpus(path: Path, tokenizer: Encoder, *, length: int, start: int | None = None) -> Iterator[list[int]]:
    """Texts of ids from a file, or from every ``.txt`` file below a folder in order of name.

    A file is cut into texts of at most `length` ids, each beginning with the id `start` where one is given.
    ``ValueError`` names a document that is not UTF-8 (and the byte), ``OSError`` one that can't be read; both when its
    turn comes. A corpus without a single document is refused at once.
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}")
    if path.is_dir():
        files = sorted(path.rglob("*.txt"))
        if not files:
            raise ValueError(f"{path} holds no .txt file")
    elif path.exists():
        files = [path]
    else:
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return (text for file in files for text in _texts(file, tokenizer, length, start))


def _texts(file: Path, tokenizer: Encoder, length: int, start: int | None) -> Iterator[list[int]]:
    try:
        ids = tokenizer.encode(file.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text; byte {error.start} is not") from None
    first = [] if start is None else [start]
    step = length - len(first)
    for at in range(0, len(ids), step):
        yield [*first, *ids[at : at + step]]

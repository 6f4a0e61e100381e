"""Corpora to study a model on, read one text at a time: a corpus may be larger than memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

BLOCK = 1 << 20  # bytes of a file that are read at once


class Encoder(Protocol):
    """Turns text into ids."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


def read_corpus(path: Path, tokenizer: Encoder, *, length: int, start: int | None = None) -> Iterator[list[int]]:
    """Texts of ids from a file, or from every ``.txt`` file below a folder in order of name.

    A file is cut into texts of at most `length` ids, each beginning with the id `start` where one is given; it is read
    and encoded about a megabyte at a time. ``ValueError`` names a document that is not UTF-8 (and the byte),
    ``OSError`` one that can't be read; both when its turn comes. A corpus without a single document is refused at once.
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
    first = [] if start is None else [start]
    step = length - len(first)
    ids: list[int] = []
    for passage in passages(file):
        ids += tokenizer.encode(passage, add_special_tokens=False)
        whole = len(ids) // step * step
        for at in range(0, whole, step):
            yield [*first, *ids[at : at + step]]
        ids = ids[whole:]
    if ids:
        yield [*first, *ids]


def passages(file: Path) -> Iterator[str]:
    """Split a file's text into passages that start after a word's end, so that their ids are those of the whole text.

    A token of GPT-2's may begin with a space but never reaches from a word into the white space after it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, read = "", 0
    with open(file, "rb") as source:
        while True:
            block = source.read(BLOCK)
            begun = len(decoder.getstate()[0])  # bytes of an incomplete character at the end of the last block
            try:
                text += decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = read - begun + error.start
                raise ValueError(f"{file} must be UTF-8 text; byte {at} is not") from None
            if not block:
                break
            read += len(block)
            end = _last_word_end(text)
            if end:
                yield text[:end]
                text = text[end:]
    if text:
        yield text


def _last_word_end(text: str) -> int:
    """Return where the last word followed by white space ends; 0 if there is none."""
    for end in range(len(text) - 1, 0, -1):
        if text[end] in " \n" and not text[end - 1].isspace():
            return end
    return 0

"""Text → documents → ids → the rows of a step, which are a function of the seed and the step alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..display import described
from ..model.ids import check_vocabulary
from ..system.files import read_text
from ..text.gpt2 import GPT2
from ..text.tokenizer_marks import END_OF_TEXT

Array = np.ndarray
Document = str | Array


class Corpus(NamedTuple):
    """Documents' ids, each document ended by ``<|endoftext|>``, in one (n,) array; and the bytes of their texts.

    ``bytes`` is 0 where the documents were ids and there is no tokenizer.
    """

    ids: Array
    bytes: int
    documents: int

    def __repr__(self) -> str:
        return described(self)


def documents_of(text: str) -> list[str]:
    """Split a text into documents at the lines ``<|endoftext|>``. Documents of white space alone are dropped."""
    return [part.strip() for part in f"\n{text}\n".split(f"\n{END_OF_TEXT}\n") if part.strip()]


def read(sources: Iterable[Any]) -> list[Document]:
    """Read the documents of text files, of JSONL files ({"text": …} or {"ids": […]} a line), or of ids themselves.

    ``ValueError`` names the file, and the line, that can't be read so.
    """
    found: list[Document] = []
    for source in sources:
        if not isinstance(source, (str, Path)):
            found.append(as_ids(source, "ids"))
        elif Path(source).suffix == ".jsonl":
            lines = read_text(Path(source)).splitlines()
            found += [of_line(line, f"{source}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
        else:
            found += documents_of(read_text(Path(source)))
    return found


def of_line(line: str, where: str) -> Document:
    """Return the document in one line of JSONL."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    if isinstance(content, dict) and isinstance(content.get("ids"), list):
        return as_ids(content["ids"], where)
    raise ValueError(f'{where}: must be an object with "text" or "ids", got {line[:40]!r}')


def as_ids(ids: object, where: str) -> Array:
    """Return ids as an int64 array. ``ValueError`` for anything else."""
    try:
        array = np.asarray(ids)
    except (ValueError, OverflowError):
        array = np.zeros((0, 0))
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{where}: ids must be a list of whole numbers, got {str(ids)[:40]}")
    return array.astype(np.int64)


def is_held_out(document: Document, share: float) -> bool:
    """Tell whether a document is held out: its own hash decides, so that the split never changes."""
    return _place(document) < share * 2**32


def _place(document: Document) -> int:
    content = document.encode() if isinstance(document, str) else np.asarray(document, "<i8").tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")


def split(documents: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    """Divide documents into (to train on, held out), by their hashes.

    If none or all would be held out, the one of the lowest hash alone is; of a single document, its end is.
    """
    if share == 0:
        return list(documents), []
    if len(documents) == 1:
        cut = min(len(documents[0]) - 1, max(1, round(len(documents[0]) * (1 - share))))
        return [documents[0][:cut]], [documents[0][cut:]]
    held = {number for number, one in enumerate(documents) if is_held_out(one, share)}
    if len(held) in (0, len(documents)):
        held = {min(range(len(documents)), key=lambda number: _place(documents[number]))}
    trained = [one for number, one in enumerate(documents) if number not in held]
    return trained, [documents[number] for number in sorted(held)]


def encode(documents: Sequence[Document], model: GPT2) -> Corpus:
    """Return the documents' ids, each ended by the tokenizer's ``<|endoftext|>`` or the model's own.

    ``ValueError`` for ids that the model doesn't have, and for text where it has no tokenizer.
    """
    ends = [model.tokenizer.end_of_text] if model.has_tokenizer else []
    end = [token for token in (*ends, *model.config.eos_token_ids) if token is not None][:1]
    end = [token for token in end if 0 <= token < model.config.vocab_size]
    rows: list[Array] = []
    size = 0
    for one in documents:
        ids = np.array(model.tokenizer.encode(one), np.int64) if isinstance(one, str) else one
        if ids.size:
            check_vocabulary(ids, model.config)
        rows.append(np.array([*ids, *end], np.int64))
        if isinstance(one, str):
            size += len(one.encode())
        elif model.has_tokenizer:
            size += sum(len(model.tokenizer.bytes_of(int(token))) for token in ids)
    return Corpus(np.concatenate(rows) if rows else np.zeros(0, np.int64), size, len(rows))


def window(ids: Array, length: int, random: np.random.Generator) -> Array:
    """Return `length` + 1 consecutive ids from a random place: the inputs, and the targets one place later."""
    start = random.integers(0, max(1, len(ids) - length - 1))
    return ids[start : start + length + 1]


def rows(corpus: Corpus, step: int, count: int, length: int, seed: int) -> Array:
    """Return the (count, length + 1) ids of a step: a function of the seed and the step alone, so a run can resume
    anywhere.
    """
    random = np.random.default_rng([seed, step])
    return np.stack([window(corpus.ids, length, random) for _ in range(count)])


def evenly_spaced(corpus: Corpus, count: int, length: int) -> Array:
    """Return (count, length + 1) ids: windows spread evenly over a corpus, the same ones at every call."""
    length = min(length, len(corpus.ids) - 1)
    starts = np.unique(np.linspace(0, len(corpus.ids) - length - 1, count).astype(np.int64))
    return np.stack([corpus.ids[start : start + length + 1] for start in starts])

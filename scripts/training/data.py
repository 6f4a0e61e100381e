"""From text to documents, a tokenizer, ids and training rows; all are determined by the text and a seed."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import load_file, save_file

from gpt2_np.text.tokenizer_marks import END_OF_TEXT
from gpt2_np.training.data import documents_of, window
from gpt2_np.training.data import is_held_out as by_hash

KINDS = ("tales", "novels")
HELD_OUT = 0.03


@dataclass(frozen=True)
class Corpus:
    """One kind of text: its documents' ids, each ended by ``<|endoftext|>``, in one (n,) uint16 array."""

    ids: np.ndarray
    bytes: int


def documents(folder: Path, kind: str) -> list[str]:
    """The documents of ``KIND.txt.xz``; a line ``<|endoftext|>`` stands between two."""
    text = lzma.decompress((folder / f"{kind}.txt.xz").read_bytes()).decode("utf-8")
    return documents_of(text)


def is_held_out(document: str) -> bool:
    """Tell whether a document is kept from training: decided by its own hash, so the split never moves."""
    return by_hash(document, HELD_OUT)


def train_tokenizer(texts: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    """A byte-level BPE as GPT-2's (Radford et al. 2019, section 2.2); ``<|endoftext|>`` is id 0."""
    inner = tokenizers.ByteLevelBPETokenizer()
    inner.train_from_iterator(texts, vocabulary, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False)
    return tokenizers.Tokenizer.from_str(inner.to_str())


def prepare(text: Path, out: Path, vocabulary: int) -> dict[str, Corpus]:
    """Every part of the text as ids ("tales", "novels", "tales held out", …), the tokenizer in ``out/tokenizer.json``.

    Kept in ``out/ids.safetensors``, so that a run which goes on starts at once.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "ids.safetensors"
    if not kept.is_file():
        split: dict[str, list[str]] = {}
        for kind in KINDS:
            for document in documents(text, kind):
                split.setdefault(f"{kind} held out" if is_held_out(document) else kind, []).append(document)
        # Tales count as much as novels for the vocabulary, the first third of each novel standing for it.
        sample = split["tales"] * 4 + [novel[: len(novel) // 3] for novel in split["novels"]]
        tokenizer = train_tokenizer(sample, vocabulary)
        tokenizer.save(str(out / "tokenizer.json"))
        arrays = {}
        for name, texts in split.items():
            encoded = [[*row.ids, 0] for row in tokenizer.encode_batch(texts)]
            arrays[name] = np.array([token for row in encoded for token in row], np.uint16)
            arrays[f"{name} bytes"] = np.array([sum(len(part.encode()) for part in texts)])
        save_file(arrays, kept)
    arrays = load_file(kept)
    return {name: Corpus(ids, int(arrays[f"{name} bytes"][0])) for name, ids in arrays.items() if "bytes" not in name}


def batch(
    corpora: dict[str, Corpus],
    step: int,
    rows: int,
    length: int,
    tales: float,
    repeats: float,
    vocabulary: int,
    seed: int,
) -> np.ndarray:
    """The (rows, length + 1) ids of one step: a function of the seed and the step alone, so a run can stop anywhere.

    A row comes from the tales with probability `tales`. With probability `repeats` it is a passage of 8 to 128 ids,
    of the text or drawn at random, over and over: what it takes to predict that is an induction head.
    """
    random = np.random.default_rng([seed, step])
    out = np.empty((rows, length + 1), np.int64)
    for row in out:
        ids = corpora["tales" if random.random() < tales else "novels"].ids
        row[:] = window(ids, length, random)
        if random.random() < repeats:
            period = int(random.integers(8, 129))
            passage = row[:period].copy() if random.random() < 0.5 else random.integers(1, vocabulary, period)
            row[:] = np.resize(passage, length + 1)
    return out

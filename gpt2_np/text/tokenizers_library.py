"""Tokenizers built by the ``tokenizers`` library. This is the only file that imports it; `own_tokenizer` is its
twin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from .added_tokens import AddedToken

EMPTY = {"type": "BPE", "vocab": {}, "merges": []}


def byte_level_bpe(table: dict[str, int], pairs: Sequence[tuple[str, str]], space: bool) -> tokenizers.Tokenizer:
    """Build a byte-level BPE as ``GPT2Tokenizer`` does."""
    inner = tokenizers.Tokenizer(models.BPE(table, list(pairs)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    inner.decoder = decoders.ByteLevel()
    return inner


def from_file(path: Path, content: dict[str, Any]) -> tokenizers.Tokenizer:
    """Build the tokenizer of a ``tokenizer.json`` as it is; `content` is the parsed file, which the twin takes."""
    return tokenizers.Tokenizer.from_file(str(path))


def post_processor(content: Any) -> Any:
    """Return the ``post_processor`` of a ``tokenizer.json``."""
    parts = dict.fromkeys(["truncation", "padding", "normalizer", "pre_tokenizer", "decoder"])
    empty = parts | {"version": "1.0", "added_tokens": [], "post_processor": content, "model": EMPTY}
    return tokenizers.Tokenizer.from_str(json.dumps(empty)).post_processor


def template(first: tuple[str, int | None] | None, last: tuple[str, int | None] | None) -> Any:
    """Put a special token with its id before every text, and one after it."""
    single = [*([f"{first[0]}:0"] if first else []), "$A:0", *([f"{last[0]}:0"] if last else [])]
    marks = dict(mark for mark in (first, last) if mark is not None)
    return processors.TemplateProcessing(single=single, special_tokens=list(marks.items()))


def add(inner: tokenizers.Tokenizer, tokens: Sequence[AddedToken]) -> None:
    """Add marks."""
    inner.add_tokens([tokenizers.AddedToken(token.content, **token.flags()) for token in tokens])

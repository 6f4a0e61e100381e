"""Continuations of a prompt: where several texts diverge in ids, and how many bytes a continuation has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..model.ids import check_prompt, check_vocabulary, whole_numbers
from .requests import Prompt, Reader


def continuations(reader: Reader, prompt: Prompt, texts: Sequence[Prompt]) -> tuple[list[int], list[list[int]]]:
    """Return the ids that some texts share with the prompt before them, and the rest of each.

    Each text is tokenized together with the prompt, as one text; ids are used as they are.
    """
    check_prompt(prompt)
    for text in texts:
        check_prompt(text, "a text")
    if isinstance(prompt, str) and all(isinstance(text, str) for text in texts):
        encode = reader.tokenizer().encode
        alone = encode(prompt)
        whole = [encode(prompt + text) for text in texts if isinstance(text, str)]
        shared = common([alone, *whole])
    else:
        alone = ids_of(reader, prompt)
        whole = [[*alone, *ids_of(reader, text, add_special_tokens=False)] for text in texts]
        shared = len(alone)
    for ids in whole:
        check_vocabulary(np.array(ids, object), reader.config)
    return (whole[0][:shared] or [reader.first()]), [ids[shared:] for ids in whole]


def ids_of(reader: Reader, text: Prompt, *, add_special_tokens: bool = True) -> list[int]:
    """Return a text's ids, or ids as Python integers."""
    if isinstance(text, str):
        return reader.tokenizer().encode(text, add_special_tokens=add_special_tokens)
    return whole_numbers(text)


def common(rows: Sequence[Sequence[int]]) -> int:
    """Return how many leading ids all rows share."""
    lists = [list(row) for row in rows]
    first, last = min(lists), max(lists)  # all others lie between these two in lexicographic order
    low, high = 0, min(len(first), len(last))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == last[low:middle] else (low, middle - 1)
    return low


def bytes_of(text: Prompt, ids: Sequence[int], tokenizer: Any) -> int:
    """Return how many bytes of text a continuation stands for; 0 for ids if there is no tokenizer."""
    if isinstance(text, str):
        return len(text.encode())
    return 0 if tokenizer is None else sum(len(tokenizer.bytes_of(token)) for token in ids)

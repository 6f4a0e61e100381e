"""Checks of token ids: integers that lie in the vocabulary and fit the context."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .config import Config

Array = np.ndarray


RULE = "a prompt must be a text or a list of ids"


def check_prompt(prompt: Any, what: str = "a prompt") -> None:
    """Raise ``ValueError``, which says what a prompt is, for anything that is neither a text nor a list of ids."""
    if isinstance(prompt, str) or (hasattr(prompt, "__array__") and np.ndim(prompt) > 0):
        return
    if isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray, memoryview)):
        wrong = next((one for one in prompt if isinstance(one, Mapping)), None)
        if wrong is None:
            return
        prompt = prompt[:1]
    why = ""
    if isinstance(prompt, (bytes, bytearray)):
        why = "; decode bytes first"
    elif isinstance(prompt, os.PathLike):
        why = "; read the file first"
    elif isinstance(prompt, Sequence):
        why = "; GPT-2 knows no chat format, so write the text itself"
    raise ValueError(
        f"{what} must be {RULE.partition(' must be ')[2]}, got {type(prompt).__name__} {prompt!r:.60}{why}"
    )


def whole_numbers(ids: Iterable[Any]) -> list[int]:
    """Return ids as Python integers; ``ValueError`` for anything else, such as 1.5, True or a text."""
    check_prompt(ids)
    found = []
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(ids, Iterable):
        raise ValueError(f"{RULE}, got {ids!r:.60}")
    for one in ids:
        try:
            if isinstance(one, (bool, np.bool_)):
                raise TypeError
            found.append(operator.index(one))
        except TypeError:
            raise ValueError(f"ids must be whole numbers, got {one!r:.60}; {RULE}") from None
    return found


def check_vocabulary(ids: Array, config: Config) -> None:
    """Raise ``ValueError``, which names the first id that is not in the vocabulary."""
    for one in ids.ravel().tolist():  # much faster than NumPy for the single id of a step
        if not 0 <= one < config.vocab_size:
            raise ValueError(f"ids must be between 0 and {config.vocab_size - 1}, got {one}")


def check_rows(ids: Sequence[Any]) -> None:
    """Raise ``ValueError`` for lists that NumPy would accept as ids but that hold other things, and for unequal
    rows.
    """
    rows = [row for row in ids if isinstance(row, (list, tuple))]
    for one in [one for row in rows for one in row] if rows else ids:
        if isinstance(one, (bool, np.bool_)):
            raise ValueError(f"ids must be whole numbers, got {one!r}; {RULE}")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or (rows and len(rows) < len(ids)):
        raise ValueError(
            f"rows of ids must be of equal lengths, got {', '.join(map(str, lengths))}"
            if len(rows) == len(ids)
            else f"rows of ids must all be lists, got {next(one for one in ids if one not in rows)!r:.60} among them"
        )


def check_ids(ids: Any, config: Config) -> Array:
    """Return ids as a (B, T) int64 array that lies in the vocabulary and fits the context; else ``ValueError``."""
    rule = "ids must be whole numbers in one or two dimensions"
    if isinstance(ids, (list, tuple)):
        check_rows(ids)
    array = np.asarray(ids)
    if array.ndim not in (1, 2) or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        if array.dtype == object and array.size <= 1:
            raise ValueError(f"{rule}, got {type(ids).__name__} {ids!r:.60}; {RULE}")
        raise ValueError(f"{rule}, got {array.dtype} {array.shape}")
    check_vocabulary(array, config)
    if array.shape[-1] > config.n_positions:
        raise ValueError(f"the model has {config.n_positions} positions, got {array.shape[-1]} ids")
    return np.atleast_2d(array).astype(np.int64, copy=False)

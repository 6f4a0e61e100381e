"""Ids of tokens: whole numbers that lie in the vocabulary."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from .config import Config

Array = np.ndarray


def whole_numbers(ids: Iterable[Any]) -> list[int]:
    """Ids as Python's whole numbers; ``ValueError`` for what is none, such as 1.5, True or a text."""
    found = []
    for one in ids:
        try:
            if isinstance(one, (bool, np.bool_)):
                raise TypeError
            found.append(operator.index(one))
        except TypeError:
            raise ValueError(f"ids must be whole numbers, got {one!r:.60}") from None
    return found


def check_vocabulary(ids: Array, config: Config) -> None:
    """``ValueError`` names the first id that is not in the vocabulary."""
    for one in ids.ravel().tolist():  # for the single id of a step much faster than NumPy
        if not 0 <= one < config.vocab_size:
            raise ValueError(f"ids must be between 0 and {config.vocab_size - 1}, got {one}")


def check_ids(ids: Any, config: Config) -> Array:
    """Ids as a (B, T) int64 array, known to lie in the vocabulary and to fit the context; else ``ValueError``."""
    array = np.asarray(ids)
    if array.ndim not in (1, 2) or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"ids must be whole numbers in one or two dimensions, got {array.dtype} {array.shape}")
    check_vocabulary(array, config)
    if array.shape[-1] > config.n_positions:
        raise ValueError(f"the model has {config.n_positions} positions, got {array.shape[-1]} ids")
    return np.atleast_2d(array).astype(np.int64, copy=False)

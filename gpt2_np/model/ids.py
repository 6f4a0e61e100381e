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

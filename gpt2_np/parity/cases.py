"""The cases of the conformance vectors: processors and their arguments, as the methods state them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from decoders import methods

# Scores with ties, with −inf, and plain; null is −inf.
ROWS: list[list[float | None]] = [
    [2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0],
    [1.0, 1.0, 1.0, 0.0, 0.0, -1.0, None, None],
    [0.0, None, 3.0, None, -1.0, 2.5, None, 2.5],
    [-3.0, -0.1, -7.0, -0.1, -2.0, -9.0, -1.0, -4.0],
]
IDS = [1, 5, 1, 3, 5, 1]

_STATED = [
    *(one for method in methods.every() for one in method.vectors),
    *(one for name in methods.PROFILES for one in methods.profile(name).vectors),
]
BUILD: dict[str, Callable[..., Any]] = {one.name: one.build for one in _STATED}
CASES: list[tuple[str, list[Any]]] = [(one.name, arguments) for one in _STATED for arguments in one.cases]

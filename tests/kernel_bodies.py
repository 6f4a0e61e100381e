"""A kernel's innermost step both ways, in plain Python and compiled, and the numbers that it is tried on."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def whole(low: int, high: int, dtype: type, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def both_ways(body: Callable[..., None], *arguments) -> tuple[np.ndarray, np.ndarray]:
    """What a body writes into its last argument, in plain Python and compiled."""
    results = []
    for run in (body, numba.njit(body)):
        out = arguments[-1].copy()
        run(*arguments[:-1], out)
        results.append(out)
    return results[0], results[1]

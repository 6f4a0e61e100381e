"""Order among scores: sorting and selecting where equal scores must not depend on the machine."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def ascending(values: Array) -> Array:
    """The places of (n,) values, lowest first, the first of equals first: ``np.argsort(kind="stable")``.

    For float32 it sorts integers that hold a value's bits above its place, so that no two are equal: many times faster
    than a stable sort of floats, since NumPy sorts integers with vector instructions.
    """
    if values.dtype != np.float32:
        return np.argsort(values, kind="stable")
    bits = (values + np.float32(0)).view(np.int32)  # −0 becomes 0
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32  # float order as integer order
    keys |= np.arange(len(values))
    keys.sort()
    return keys & 0xFFFFFFFF


def descending(values: Array) -> Array:
    """The places of (n,) values, highest first, the first of equals first."""
    return ascending(-values)


def best(values: Array, n: int) -> Array:
    """Which of (V,) values are the n highest, as (V,) bool: exactly n, of equals those that come first."""
    if n >= len(values):
        return np.ones(len(values), bool)
    least = np.partition(values, -n)[-n]
    chosen: Array = values > least
    chosen[np.flatnonzero(values == least)[: n - np.count_nonzero(chosen)]] = True
    return chosen


def highest(values: Array, n: int) -> Array:
    """The places of the n highest of (V,) values, highest first, the first of equals first."""
    places = np.flatnonzero(best(values, n))
    return places[np.argsort(-values[places], kind="stable")]

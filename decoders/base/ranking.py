"""Order among scores: sorting and selecting where equal scores must not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
STRETCH = 128


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


def nth(values: Array, n: int) -> Array:
    """The n-th highest of (V,) values, n counting from 1; the lowest where there are not so many.

    What is −inf is set aside first: after a truncation that is nearly everything, and NumPy's selection is slow where
    most values are equal.
    """
    some = values if values.min() > -np.inf else values[values > -np.inf]
    if n > len(some):
        return values.min()
    return np.partition(some, len(some) - n)[len(some) - n]


def best(values: Array, n: int) -> Array:
    """Which of (V,) values are the n highest, as (V,) bool: exactly n, of equals those that come first."""
    if n >= len(values):
        return np.ones(len(values), bool)
    least = nth(values, n)
    chosen: Array = values > least
    chosen[np.flatnonzero(values == least)[: n - np.count_nonzero(chosen)]] = True
    return chosen


def highest(values: Array, n: int) -> Array:
    """The places of the n highest of (V,) values, highest first, the first of equals first.

    Many values are searched by the highest of each stretch: what doesn't reach the n-th highest of these isn't chosen.
    """
    if n >= len(values):
        return descending(values)
    places, stretches = np.arange(len(values)), len(values) // STRETCH
    if stretches >= 2 * n:
        peaks = values[: stretches * STRETCH].reshape(stretches, STRETCH).max(axis=1)
        places = np.flatnonzero(values >= np.partition(peaks, -n)[-n])
    places = places[best(values[places], n)]
    return places[np.argsort(-values[places], kind="stable")]


def top(values: Array, n: int) -> Array:
    """The n highest of (V,) values, highest first."""
    chosen = values.copy() if n >= len(values) else np.partition(values, -n)[-n:]
    chosen.sort()
    return chosen[::-1]


def glimpses(n: int) -> Iterator[int]:
    """How many of n sorted values to look at: a few, since they decide in most cases; all, where they don't."""
    yield from (few for few in (1000, 8000) if 2 * few < n)
    yield n

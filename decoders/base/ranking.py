"""Sorting and selecting scores, with ties broken the same way on every machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Array = np.ndarray
STRETCH = 128


def ascending(values: Array) -> Array:
    """Return the places of (n,) values, lowest first, ties in order: ``np.argsort(kind="stable")``.

    float32 values are sorted as integers that hold a value's bits above its place, so that no two are equal: this is
    many times faster than a stable sort of floats, since NumPy sorts integers with SIMD instructions.
    """
    if values.dtype != np.float32:
        return np.argsort(values, kind="stable")
    bits = (values + np.float32(0)).view(np.int32)  # −0 becomes 0
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32  # float order as integer order
    keys |= np.arange(len(values))
    keys.sort()
    return keys & 0xFFFFFFFF


def descending(values: Array) -> Array:
    """Return the places of (n,) values, highest first, ties in order."""
    return ascending(-values)


def nth(values: Array, n: int) -> Array:
    """Return the n-th highest of (V,) values, counting from 1; the lowest if there are fewer.

    Values of −inf are removed first: after a truncation they are nearly all, and NumPy's selection is slow if most
    values are equal.
    """
    some = values if values.min() > -np.inf else values[values > -np.inf]
    if n > len(some):
        return values.min()
    return np.partition(some, len(some) - n)[len(some) - n]


def best(values: Array, n: int) -> Array:
    """Return a mask of the n highest of (V,) values: exactly n are True, of equal ones the first."""
    if n >= len(values):
        return np.ones(len(values), bool)
    least = nth(values, n)
    chosen: Array = values > least
    chosen[np.flatnonzero(values == least)[: n - np.count_nonzero(chosen)]] = True
    return chosen


def highest(values: Array, n: int) -> Array:
    """Return the places of the n highest of (V,) values, highest first, ties in order.

    Long arrays are divided into stretches: only stretches whose maximum reaches the n-th highest maximum are searched.
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
    """Return the n highest of (V,) values, highest first."""
    chosen = values.copy() if n >= len(values) else np.partition(values, -n)[-n:]
    chosen.sort()
    return chosen[::-1]


def glimpses(n: int) -> Iterator[int]:
    """Yield how many of n sorted values to look at: a few first, since they mostly decide, then all."""
    yield from (few for few in (1000, 8000) if 2 * few < n)
    yield n

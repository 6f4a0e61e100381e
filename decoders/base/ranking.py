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

    Only values that reach a `lower_bound` are searched. Where none is known, values of −inf are removed first: after a
    truncation they are nearly all, and NumPy's selection is slow if most values are equal.
    """
    bound = lower_bound(values, n)
    if bound > -np.inf:
        some = values[values >= bound]
    else:
        some = values if values.min() > -np.inf else values[values > -np.inf]
    if n > len(some):
        return values.min()
    return np.partition(some, len(some) - n)[len(some) - n]


def lower_bound(values: Array, n: int) -> float:
    """Return a number that at least n of (V,) values reach, near the n-th highest; −inf where that would take longer
    than to search all of them, or where one is NaN.

    It is the n-th highest of the maxima of stretches: values that lie some hundreds apart, whose maxima NumPy finds
    several at a time.
    """
    stretches = len(values) // STRETCH
    if stretches < 2 * n or np.isnan(values.max()):
        return -np.inf
    peaks = values[: stretches * STRETCH].reshape(STRETCH, stretches).max(axis=0)
    return np.partition(peaks, stretches - n)[stretches - n]


def reaching(values: Array, n: int) -> Array:
    """Return the places, in order, of the values that reach the n-th highest of (V,) values, and of NaN; all places if
    there are fewer.
    """
    bound = lower_bound(values, n)
    if bound == -np.inf:
        return np.flatnonzero(~(values < nth(values, n)))  # NaN is not below it
    places = np.flatnonzero(values >= bound)
    some = values[places]
    return places[some >= nth(some, n)]


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

    Only values that reach a `lower_bound` are sorted.
    """
    if n >= len(values):
        return descending(values)
    bound = lower_bound(values, n)
    places = np.flatnonzero(values >= bound) if bound > -np.inf else np.arange(len(values))
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

"""Nested arrays seen as a list: `Params`, or dicts and tuples of arrays, as adapters have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..model.params import Params, map_arrays

Array = np.ndarray


def map_tree(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same nest with ``change(array)`` in place of every array, each visited once; a tied head stays tied."""
    if isinstance(tree, Params):
        return map_arrays(tree, change)
    if isinstance(tree, dict):
        return {name: map_tree(part, change) for name, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [map_tree(part, change) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return change(tree)


def leaves(tree: Any) -> list[Any]:
    """The arrays of a nest, in an order that the same nest always has."""
    found: list[Any] = []
    map_tree(tree, found.append)
    return found


def rebuilt(tree: Any, arrays: list[Any]) -> Any:
    """A nest like this one of other arrays, in the order of `leaves`."""
    following = iter(arrays)
    return map_tree(tree, lambda _: next(following))

"""Trees of arrays: `Params`, or nested dicts and tuples of arrays, as adapters have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..model.params import Params, map_arrays

Array = np.ndarray
Tree = TypeVar("Tree")  # a kind of nest


def map_tree(tree: Any, change: Callable[[Array], Any]) -> Any:
    """Return the same tree with ``change(array)`` in place of every array, each visited once; a tied head stays
    tied.
    """
    if isinstance(tree, Params):
        return map_arrays(tree, change)
    if isinstance(tree, dict):
        return {name: map_tree(part, change) for name, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [map_tree(part, change) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return change(tree)


def leaves(tree: object) -> list[Array]:
    """List the arrays of a tree, in an order that depends only on its structure."""
    found: list[Array] = []
    map_tree(tree, found.append)
    return found


def rebuilt(tree: Tree, arrays: list[Array]) -> Tree:
    """Return a tree of the same structure with these arrays, in the order of `leaves`: itself if they are its own."""
    if all(one is other for one, other in zip(leaves(tree), arrays, strict=True)):
        return tree
    following = iter(arrays)
    same: Tree = map_tree(tree, lambda _: next(following))
    return same

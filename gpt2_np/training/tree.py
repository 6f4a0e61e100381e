"""Trees of arrays: `Params`, or nested dicts and tuples of arrays, as adapters have them."""

from __future__ import annotations

import numpy as np

from ..model.params import Tree, map_arrays

Array = np.ndarray


def leaves(tree: object) -> list[Array]:
    """List the arrays of a tree, in an order that depends only on its structure."""
    found: list[Array] = []
    map_arrays(tree, found.append)
    return found


def rebuilt(tree: Tree, arrays: list[Array]) -> Tree:
    """Return a tree of the same structure with these arrays, in the order of `leaves`: itself if they are its own."""
    if all(one is other for one, other in zip(leaves(tree), arrays, strict=True)):
        return tree
    following = iter(arrays)
    return map_arrays(tree, lambda _: next(following))

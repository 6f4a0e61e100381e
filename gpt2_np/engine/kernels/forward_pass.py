"""The compiled forward pass (`fused`), from the object file of an earlier process or else compiled by Numba.

Numba is loaded in the second case only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ...system.garbage import without_garbage_collection
from . import object_code
from .threads import layer

Array = np.ndarray
SOURCE = Path(__file__).with_name("fused.py")
# Addresses of ids, token types, lengths, logits, two tables and the shapes; epsilon. The GIL stays held: not every
# threading layer of Numba can serve two steps at once.
CALL = ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_float)


@cache
def forward(code: str, head: str) -> Callable[..., None]:
    """Return `fused.forward` for weights of these dtypes, as a function of arrays. ``ImportError`` if it must be
    compiled and Numba can't be loaded.
    """
    name = f"forward-{code}{head}"
    with without_garbage_collection():
        where = object_code.load(SOURCE, name) if object_code.supported() else None
        if where is None:
            from . import fused

            made = fused.forward(code, head)
            if fused.PLAIN:
                plain: Callable[..., None] = made
                return plain
            object_code.save(SOURCE, name, made._cache.code, made.native_name, layer())
            where = made.address
    return from_address(where)


def from_address(where: int) -> Callable[..., None]:
    """Return the function at this address, for arrays, which must be contiguous and of `fused.forward`'s dtypes."""
    call = CALL(where)

    def run(
        ids: Array, kinds: Array, lengths: Array, logits: Array, epsilon: float, layers: Array, rest: Array
    ) -> None:
        shapes = np.array([*ids.shape, len(kinds) > 0, *logits.shape[1:], *layers.shape, rest.shape[1]], np.int64)
        call(*[array.ctypes.data for array in (ids, kinds, lengths, logits, layers, rest, shapes)], epsilon)

    return run

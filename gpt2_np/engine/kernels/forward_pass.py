"""The compiled forward pass (`fused`), from the object file of an earlier process or of one that is started to make it.

Where object files aren't used, Numba is loaded and compiles it in this process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ...system.garbage import without_garbage_collection
from . import code_cache, forward_object, object_code

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
    with without_garbage_collection():
        where = from_object_file(code, head) if object_code.supported() else None
        if where is None:
            from . import fused

            made = fused.forward(code, head)
            if fused.PLAIN:
                plain: Callable[..., None] = made
                return plain
            where = made.address
    return from_address(where)


def from_object_file(code: str, head: str) -> int | None:
    """Return the address of the forward pass, whose object file is made where there is none; None if that fails."""
    name = f"forward-{code}{head}"
    where = object_code.load(SOURCE, name)
    if where is None:
        code_cache.announce()
        content = forward_object.object_file(code, head)
        where = None if content is None else object_code.linked(content)
        if content is not None and where is not None:
            object_code.save(SOURCE, name, content)
    return where


def from_address(where: int) -> Callable[..., None]:
    """Return the function at this address, for arrays, which must be contiguous and of `fused.forward`'s dtypes."""
    call = CALL(where)

    def run(
        ids: Array, kinds: Array, lengths: Array, logits: Array, epsilon: float, layers: Array, rest: Array
    ) -> None:
        shapes = np.array([*ids.shape, len(kinds) > 0, *logits.shape[1:], *layers.shape, rest.shape[1]], np.int64)
        call(*[array.ctypes.data for array in (ids, kinds, lengths, logits, layers, rest, shapes)], epsilon)

    return run

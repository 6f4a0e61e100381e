"""A matrix of any precision times few vectors: which kernel that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from .streaming import stream_rows

Array = np.ndarray


@register_jitable
def float32_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """`streaming.stream_rows`, with the arguments of the others."""
    stream_rows(x, codes, bias, sums, out)


def kernel(code: str) -> Callable[..., None]:
    """The kernel for weights kept in this dtype (``dtype.char``); the reduced ones are loaded when first asked for."""
    if code == "f":
        return float32_rows
    if code == "B":
        from . import int4

        return int4.int4_tiles
    from . import reduced

    return reduced.bfloat16_rows if code == "H" else reduced.int8_rows


def product(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """x times a matrix of any precision, plus the bias, into ``out``: (R, D) float32 → (R, F).

    ``codes`` and ``scales`` are as in `quantize.Matrix`; a float32 array (D, F) goes without scales. ``sums`` is room
    to work in, (BLOCKS, `rows_with_room`, F …).
    """
    kernel(codes.dtype.char)(x, codes, scales, bias, sums, out)


@overload(product)
def _product(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
    chosen = kernel(np.dtype(str(codes.dtype)).char)

    def run(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
        chosen(x, codes, scales, bias, sums, out)

    return run

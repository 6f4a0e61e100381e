"""A matrix of any precision times few vectors: which kernel that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types, void
from numba.extending import overload, register_jitable

from .arithmetic import ORDERED_PARALLEL, matrix, out2, vector
from .dots import dot_rows
from .streaming import stream_rows

Array = np.ndarray

float32_dots = numba.njit(void(matrix, matrix, vector, out2), **ORDERED_PARALLEL)(dot_rows)


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


def unembed_rows(x: Array, codes: Array, scales: Array, bias: Array, sums: Array, out: Array) -> None:
    """As `product`, of a vocabulary: float32 has its outputs in rows, (V, D), as the reduced ones have."""
    if codes.dtype == np.float32:
        float32_dots(x, codes, bias, out)
    else:
        product(x, codes, scales, bias, sums, out)


@overload(unembed_rows)
def _unembed_rows(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
    def in_rows(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
        float32_dots(x, codes, bias, out)

    def reduced(x: Any, codes: Any, scales: Any, bias: Any, sums: Any, out: Any) -> Any:
        product(x, codes, scales, bias, sums, out)

    return in_rows if codes.dtype == types.float32 else reduced

"""A matrix of any precision times few vectors: which kernel that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import void
from numba.extending import overload, register_jitable

from .arithmetic import PARALLEL, matrix, out2, vector
from .compiled import compiled
from .dots import dot_rows
from .threads import launch

Array = np.ndarray

float32_dots = compiled(void(matrix, matrix, vector, out2), **PARALLEL)(dot_rows)


@register_jitable
def float32_rows(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """`dots.dot_rows` for float32, with the arguments of the others."""
    float32_dots(x, codes, bias, out)


def kernel(code: str) -> Callable[..., None]:
    """The kernel for weights kept in this dtype (``dtype.char``); the reduced ones are loaded when first asked for."""
    if code == "f":
        return float32_rows
    if code == "B":
        from . import int4

        return int4.int4_tiles
    from . import reduced

    return reduced.bfloat16_rows if code == "H" else reduced.int8_rows


def product(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """x times a matrix of any precision, plus the bias, into ``out``: (R, D) float32 → (R, F).

    ``codes`` and ``scales`` are as in `quantize.Matrix`; float32 weights, (F, D), go without scales.
    """
    launch(kernel(codes.dtype.char), x, codes, scales, bias, out)


@overload(product)
def _product(x: Any, codes: Any, scales: Any, bias: Any, out: Any) -> Any:
    chosen = kernel(np.dtype(str(codes.dtype)).char)

    def run(x: Any, codes: Any, scales: Any, bias: Any, out: Any) -> Any:
        chosen(x, codes, scales, bias, out)

    return run

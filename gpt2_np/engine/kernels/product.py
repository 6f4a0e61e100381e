"""The choice of the kernel that multiplies a matrix of any precision with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from .float32 import float32_panels
from .threads import launch

Array = np.ndarray


def kernel(code: str) -> Callable[..., None]:
    """Return the kernel for weights of this dtype (``dtype.char``); those of reduced precision are loaded on first
    request.
    """
    if code == "f":
        return float32_panels
    if code == "I":
        from .bfloat16 import bfloat16_panels

        return bfloat16_panels
    if code == "b":
        from .int8 import int8_panels

        return int8_panels
    from .int4 import int4_panels

    return int4_panels


def product(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Write x times a matrix of any precision, plus the bias, into ``out``: (R, D) float32 → (R, F).

    ``codes`` and ``scales`` are those of a `weights.panels.Matrix`.
    """
    launch(kernel(codes.dtype.char), x, codes, scales, bias, out)


@overload(product)
def _product(x: Any, codes: Any, scales: Any, bias: Any, out: Any) -> Any:
    chosen = kernel(np.dtype(str(codes.dtype)).char)

    def run(x: Any, codes: Any, scales: Any, bias: Any, out: Any) -> Any:
        chosen(x, codes, scales, bias, out)

    return run

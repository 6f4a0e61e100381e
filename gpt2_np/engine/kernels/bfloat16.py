"""bfloat16 matrices times any number of vectors: half of float32's bytes, the same sums of products in float32."""

from __future__ import annotations

import numpy as np
from numba import prange, types, void

from .arithmetic import PARALLEL, SERIAL, halves3, matrix, out2, threads_here, vector
from .compiled import compiled
from .panels import panel_and_bias

Array = np.ndarray


@compiled(void(types.int64, matrix, halves3, vector, out2), **SERIAL)
def bfloat16_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    """`panels.panel_and_bias`, compiled once for both ways of `bfloat16_panels`."""
    panel_and_bias(n, x, panels, bias, out)


@compiled(void(matrix, halves3, matrix, vector, out2), **PARALLEL)
def bfloat16_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """As `panels.float32_panels`, for panels of bfloat16."""
    if threads_here() == 1:
        for n in range(len(codes)):
            bfloat16_panel(n, x, codes, bias, out)
    else:
        for n in prange(len(codes)):
            bfloat16_panel(np.int64(n), x, codes, bias, out)

"""bfloat16 matrices times any number of vectors: they take half of float32's bytes and are summed in float32 alike."""

from __future__ import annotations

import numpy as np
from numba import prange, types, void

from .compiled import compiled
from .float32 import panel_and_bias
from .kernel_types import PARALLEL, SERIAL, halves3, matrix, out2, threads_here, vector

Array = np.ndarray


@compiled(void(types.int64, matrix, halves3, vector, out2), **SERIAL)
def bfloat16_panel(n: int, x: Array, panels: Array, bias: Array, out: Array) -> None:
    """Run `float32.panel_and_bias`; it is compiled once for the serial and the parallel loop of `bfloat16_panels`."""
    panel_and_bias(n, x, panels, bias, out)


@compiled(void(matrix, halves3, matrix, vector, out2), **PARALLEL)
def bfloat16_panels(x: Array, codes: Array, scales: Array, bias: Array, out: Array) -> None:
    """Compute `float32.float32_panels` for panels of bfloat16."""
    if threads_here() == 1:
        for n in range(len(codes)):
            bfloat16_panel(n, x, codes, bias, out)
    else:
        for n in prange(len(codes)):
            bfloat16_panel(np.int64(n), x, codes, bias, out)

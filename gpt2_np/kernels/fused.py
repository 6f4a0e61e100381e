"""A whole block for few positions in one compiled call: what decoding spends its time on.

The twin of `model.block`, for GPT-2's own activation and with a cache. Nothing in it is new: it strings together the
kernels of the single operations, so it gives the same bits as they do, without the way back to Python between them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types, void

from .arithmetic import PARALLEL, codes4, codes8, codes16, grids, lengths1, matrix, out2, out3, out4, vector
from .causal import ask, attend
from .pointwise import gelu_rows, layer_norm_rows
from .product import product
from .registers import LINE
from .streaming import BLOCKS, rows_with_room

Array = np.ndarray

WEIGHTS = {"f": (matrix, matrix), "H": (codes16, matrix), "b": (codes8, matrix), "B": (codes4, grids)}


def _block(
    x: Array, rows: Array, positions: Array, k: Array, v: Array, epsilon: float, scale: float,
    ln_1_weight: Array, ln_1_bias: Array, attn: Array, attn_scales: Array, attn_bias: Array,
    proj: Array, proj_scales: Array, proj_bias: Array, ln_2_weight: Array, ln_2_bias: Array,
    fc: Array, fc_scales: Array, fc_bias: Array, out: Array, out_scales: Array, out_bias: Array,
    normalized: Array, qkv: Array, q: Array, pattern: Array, z: Array, hidden: Array, activated: Array, sums: Array,
) -> None:  # fmt: skip
    R, D = x.shape
    H, K = k.shape[1], k.shape[3]
    layer_norm_rows(x, ln_1_weight, ln_1_bias, epsilon, normalized)
    product(normalized, attn, attn_scales, attn_bias, sums, qkv)
    for r in range(R):
        for h in range(H):
            for d in range(0, K, LINE):
                ask(k[rows[r], h], positions[r], d)
                ask(v[rows[r], h], positions[r], d)
    for r in range(R):
        for h in range(H):
            for d in range(K):
                q[r, h, d] = qkv[r, h * K + d]
                k[rows[r], h, positions[r], d] = qkv[r, D + h * K + d]
                v[rows[r], h, positions[r], d] = qkv[r, 2 * D + h * K + d]
    attend(q, k, v, rows, positions + 1, scale, pattern, z)
    product(z.reshape(R, D), proj, proj_scales, proj_bias, sums, normalized)
    x += normalized

    layer_norm_rows(x, ln_2_weight, ln_2_bias, epsilon, normalized)
    product(normalized, fc, fc_scales, fc_bias, sums, hidden)
    gelu_rows(hidden, activated)
    product(activated, out, out_scales, out_bias, sums, normalized)
    x += normalized


def room(R: int, D: int, F: int, H: int, longest: int) -> tuple[Array, ...]:
    """What a block needs to work in, for R positions that see up to `longest` keys."""
    heads = (R, H, D // H)
    sums = (BLOCKS, rows_with_room(R), max(3 * D, F))
    shapes = ((R, D), (R, 3 * D), heads, (R, H, longest), heads, (R, F), (R, F), sums)
    return tuple(np.empty(shape, np.float32) for shape in shapes)


@cache
def block(code: str) -> Any:
    """The compiled block for weights kept in this dtype (``dtype.char``). Compiled when first asked for.

    It changes ``x`` (R, D), the residual stream of R positions, in place, and writes their keys and values into the
    layer's cache, ``k`` and ``v`` (B, H, N, K): position r belongs to row ``rows[r]`` and stands at ``positions[r]``.
    Its last arguments are a `room`.
    """
    linear = (*WEIGHTS[code], vector)
    signature = void(out2, lengths1, lengths1, out4, out4, types.float32, types.float32, vector, vector, *linear,
                     *linear, vector, vector, *linear, *linear,
                     out2, out2, out3, out3, out3, out2, out2, out3)  # fmt: skip
    return numba.njit(signature, **PARALLEL)(_block)

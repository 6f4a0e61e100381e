"""Products with reduced-precision matrices: each row of codes read once, widened on the way, summed in float32."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange, types, void
from numba.extending import intrinsic

from .arithmetic import PARALLEL, PLAIN, matrix, out2

Array = np.ndarray
codes8 = types.Array(types.int8, 2, "C", readonly=True)
codes16 = types.Array(types.uint16, 2, "C", readonly=True)
BLOCKS = 64


def _widen(typing: Any, code: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(types.uint32)
        bits = builder.shl(builder.zext(arguments[0], word), word(16))
        return builder.bitcast(bits, context.get_value_type(types.float32))

    return types.float32(types.uint16), codegen


def _widen_plain(code: Any) -> Any:
    return np.array([int(code) << 16], np.uint32).view(np.float32)[0]


# The float32 whose upper half is this uint16.
widen: Any = _widen_plain if PLAIN else intrinsic(_widen)


@numba.njit(void(matrix, codes16, out2), **PARALLEL)
def _bfloat16(x: Array, codes: Array, out: Array) -> None:
    B, D = x.shape
    F = codes.shape[0]
    size = ((F + BLOCKS - 1) // BLOCKS + 3) // 4 * 4
    for block in prange(BLOCKS):
        start, end = min(F, block * size), min(F, block * size + size)
        whole = start + (end - start) // 4 * 4
        for f in range(start, whole, 4):
            for b in range(B):
                s0 = s1 = s2 = s3 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * widen(codes[f, d])
                    s1 += x[b, d] * widen(codes[f + 1, d])
                    s2 += x[b, d] * widen(codes[f + 2, d])
                    s3 += x[b, d] * widen(codes[f + 3, d])
                out[b, f], out[b, f + 1], out[b, f + 2], out[b, f + 3] = s0, s1, s2, s3
        for f in range(whole, end):
            for b in range(B):
                s0 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * widen(codes[f, d])
                out[b, f] = s0


@numba.njit(void(matrix, codes8, matrix, out2), **PARALLEL)
def _int8(x: Array, codes: Array, scales: Array, out: Array) -> None:
    B, D = x.shape
    F = codes.shape[0]
    size = ((F + BLOCKS - 1) // BLOCKS + 3) // 4 * 4
    for block in prange(BLOCKS):
        start, end = min(F, block * size), min(F, block * size + size)
        whole = start + (end - start) // 4 * 4
        for f in range(start, whole, 4):
            for b in range(B):
                s0 = s1 = s2 = s3 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * np.float32(codes[f, d])
                    s1 += x[b, d] * np.float32(codes[f + 1, d])
                    s2 += x[b, d] * np.float32(codes[f + 2, d])
                    s3 += x[b, d] * np.float32(codes[f + 3, d])
                out[b, f], out[b, f + 1] = s0 * scales[f, 0], s1 * scales[f + 1, 0]
                out[b, f + 2], out[b, f + 3] = s2 * scales[f + 2, 0], s3 * scales[f + 3, 0]
        for f in range(whole, end):
            for b in range(B):
                s0 = np.float32(0)
                for d in range(D):
                    s0 += x[b, d] * np.float32(codes[f, d])
                out[b, f] = s0 * scales[f, 0]


def product(x: Array, codes: Array, scales: Array) -> Array:
    """(rows, inputs) float32 times a reduced matrix, as `quantize.Matrix.product`: (rows, outputs)."""
    out = np.empty((len(x), len(codes)), np.float32)
    if codes.dtype == np.uint16:
        _bfloat16(x, codes, out)
    else:
        _int8(x, codes, scales, out)
    return out

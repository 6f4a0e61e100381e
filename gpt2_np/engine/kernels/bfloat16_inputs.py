"""Inputs of bfloat16 products, rounded to bfloat16: as float32 numbers, or two to a word, as the weights are.

They are rounded to the nearest, ties to even, as torch rounds a tensor before its own bfloat16 product. A processor
that multiplies pairs of bfloat16 takes words; the others take float32 numbers whose lower bits are 0.
"""

from __future__ import annotations

import numpy as np
from numba import types, void
from numba.extending import register_jitable

from .compiled import compiled
from .kernel_types import SERIAL, bits_of_float, matrix, out2

Array = np.ndarray
words2 = types.Array(types.uint32, 2, "C")


@register_jitable
def rounded_bits(x: float) -> int:
    """Return a float32's bits, int32, rounded to bfloat16: the lower half is to be ignored. NaN becomes a quiet NaN."""
    bits = bits_of_float(x)
    return bits | np.int32(0x400000) if x != x else bits + np.int32(0x7FFF) + (bits >> np.int32(16) & np.int32(1))


@compiled(void(matrix, out2), **SERIAL)
def rounded_rows(x: Array, out: Array) -> None:
    """Round x, (R, D), to bfloat16; ``out`` is float32, and may have more columns, which become 0."""
    D = x.shape[1]
    bits = out.view(np.int32)
    for r in range(len(x)):
        for d in range(D):
            bits[r, d] = rounded_bits(x[r, d]) & np.int32(-65536)
        for d in range(D, out.shape[1]):
            bits[r, d] = 0


@compiled(void(matrix, words2), **SERIAL)
def words_of_rows(x: Array, words: Array) -> None:
    """Round x, (R, D), to bfloat16, two inputs to a word of ``words``, (R, ⌈D / 2⌉): the first in the lower half."""
    D = x.shape[1]
    for r in range(len(x)):
        for d in range(D // 2):
            lower = np.uint32(rounded_bits(x[r, 2 * d])) >> np.uint32(16)
            words[r, d] = lower | np.uint32(rounded_bits(x[r, 2 * d + 1])) & np.uint32(0xFFFF0000)
        if D % 2 == 1:
            words[r, D // 2] = np.uint32(rounded_bits(x[r, D - 1])) >> np.uint32(16)

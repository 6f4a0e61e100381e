"""int4 matrices times any number of vectors: 8-bit integer products, with a scale and a midpoint for every 32 inputs.

A byte of a panel holds two codes, which are unpacked by a mask and a shift. Products of codes and quantized inputs are
summed exactly, and each group's sum is converted to float32 once. AVX-512 sums them in words of 32 bits, other
processors in halves of words; the bits are the same.
"""

from __future__ import annotations

from .simd import AVX512

if AVX512:
    from .int4_words import int4_panels as int4_panels
else:
    from .int4_halves import int4_panels as int4_panels

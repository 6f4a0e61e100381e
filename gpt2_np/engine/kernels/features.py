"""What dictionaries do with features: their activation functions, and the sums of directions of those that fire.

The activation functions are the twins of `internals.dictionaries.activation_functions`. Each goes over a row once where
NumPy goes over it several times, and gives the same bits: nothing is contracted, since a fused multiply-add rounds once
where NumPy rounds twice. Each overwrites its (n, F) argument, which must be float32 and contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import types, void
from numba.extending import register_jitable

from .compiled import compiled
from .kernel_types import SERIAL, matrix, out2, vector

Array = np.ndarray
EXACT = {"error_model": "numpy", "nogil": True}
CHUNK = 64  # columns that are looked at together: most hold no candidate
SUBNORMAL = 1  # the bits of the smallest number above 0
AFTER_INFINITY = 0x7F800001


@compiled(void(out2, vector), **EXACT)
def relu(pre: Array, bias: Array) -> None:
    """Compute `activation_functions.relu`; a NaN stays one."""
    for r in range(pre.shape[0]):
        row = pre[r]
        for f in range(pre.shape[1]):
            x = row[f] + bias[f]
            row[f] = np.float32(0) if x <= 0 else x


@compiled(void(out2, vector, vector), **EXACT)
def jumprelu(pre: Array, bias: Array, threshold: Array) -> None:
    """Compute `activation_functions.jumprelu`, for thresholds of at least 0."""
    for r in range(pre.shape[0]):
        row = pre[r]
        for f in range(pre.shape[1]):
            x = row[f] + bias[f]
            row[f] = x * (np.float32(1) if x > threshold[f] else np.float32(0))


@compiled(void(out2, vector, vector, vector), **EXACT)
def gated(pre: Array, b_gate: Array, magnitude: Array, b_mag: Array) -> None:
    """Compute `activation_functions.gated`."""
    for r in range(pre.shape[0]):
        row = pre[r]
        for f in range(pre.shape[1]):
            gate = row[f]
            x = gate * magnitude[f] + b_mag[f]
            x = np.float32(0) if x <= 0 else x
            row[f] = x * (np.float32(1) if gate > -b_gate[f] else np.float32(0))


@register_jitable(**EXACT)
def kth_largest(bits: Array, count: int, k: int) -> int:
    """Return the bits of the k-th largest of the first `count` numbers, or those of the smallest above 0 if fewer are.

    Floats above 0 are ordered as their bits, so it is found by halving: 31 counts, which have no branches.
    """
    low, high = np.int32(SUBNORMAL), np.int32(AFTER_INFINITY)
    while high - low > 1:
        middle = np.int32(low + (high - low) // 2)
        enough = np.int32(0)
        for i in range(count):
            enough += np.int32(bits[i] >= middle)
        if enough >= k:
            low = middle
        else:
            high = middle
    return low


@compiled(types.int64(out2, vector, types.int64, types.boolean), **EXACT)
def topk_rows(pre: Array, bias: Array, k: int, signed: bool) -> int:
    """Keep the k largest of pre + bias in each row where they are above 0; with `signed` the k largest in size.

    Returns the number of rows that are done: it stops at a row with a NaN, which is left as it is. The k-th largest of
    the largest values of 4 k groups of columns can't be above the k-th largest of all: what is at least that is a
    little more than k values, among which the k-th largest is looked for again.
    """
    n, F = pre.shape
    groups = 16 * ((4 * k + 15) // 16)
    whole = F // groups * groups
    tops, some = np.empty(groups, np.float32), np.empty(CHUNK, np.float32)
    top_bits, some_bits = tops.view(np.int32), some.view(np.int32)
    found, columns, values = np.empty(F, np.int32), np.empty(F, np.int32), np.empty(F, np.float32)
    for r in range(n):
        row = pre[r]
        tops[:] = 0
        nan = np.int32(0)
        for first in range(0, whole, groups):
            part, added = row[first : first + groups], bias[first : first + groups]
            for g in range(groups):
                x = part[g] + added[g]
                x = abs(x) if signed else x
                nan |= np.int32(x != x)
                tops[g] = x if x > tops[g] else tops[g]
        for f in range(whole, F):
            x = row[f] + bias[f]
            nan |= np.int32(x != x)
        if nan:
            return r

        least = kth_largest(top_bits, groups, k)
        count = 0
        for first in range(0, F, CHUNK):
            part, added = row[first : first + CHUNK], bias[first : first + CHUNK]
            for i in range(len(part)):
                x = part[i] + added[i]
                some[i] = abs(x) if signed else x
            candidates = np.int32(0)
            for i in range(len(part)):
                candidates += np.int32(some_bits[i] >= least)
            if candidates:
                for i in range(len(part)):
                    if some_bits[i] >= least:
                        found[count], columns[count], values[count] = some_bits[i], first + i, part[i] + added[i]
                        count += 1

        least = kth_largest(found, count, k)
        equals = k
        for i in range(count):
            equals -= np.int64(found[i] > least)
        row[:] = 0
        for i in range(count):
            if found[i] > least:
                row[columns[i]] = values[i]
            elif found[i] == least and equals > 0:  # of equal values the first ones
                row[columns[i]] = values[i]
                equals -= 1
    return n


@compiled(void(matrix, matrix, out2), **SERIAL)
def sparse_product(features: Array, directions: Array, out: Array) -> None:
    """Compute features @ directions, (n, F) and (F, O), reading only the directions of features that aren't 0."""
    n, F = features.shape
    for r in range(n):
        row, total = features[r], out[r]
        total[:] = 0
        for first in range(0, F, CHUNK):
            part = row[first : first + CHUNK]
            fire = np.int32(0)
            for i in range(len(part)):
                fire += np.int32(part[i] != 0)
            if fire:
                for i in range(len(part)):
                    if part[i] != 0:
                        x, direction = part[i], directions[first + i]
                        for o in range(len(total)):
                            total[o] += x * direction[o]

"""torch's random streams, without torch: the same seed gives the same draws.

``torch.multinomial(p, n)`` without replacement (and for n = 1) is the n largest of p / q, q being drawn from the
exponential distribution over the whole tensor (``aten/src/ATen/native/Distributions.cpp``). So a stream is one
function: the exponentials of a (rows, V) float32 tensor, at the places asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.readable import Readable
from .cuda_log import log

Array = np.ndarray


class CPU(Readable):
    """``torch.manual_seed(seed)`` on the CPU: MT19937, two 32-bit draws an element, the high one first.

    u has 53 bits, q = float32(−ln(1 − u)) (``aten/src/ATen/core/DistributionsHelper.h``). Checked against torch 2.13.
    """

    def __init__(self, seed: int) -> None:
        # One whole-range 64-bit integer is two 32-bit draws, the high one first.
        self._bits = seeded(seed)
        self._integers = np.random.Generator(self._bits).integers

    def draw(self, rows: int, V: int) -> CPUDraws:
        return CPUDraws(self._integers(0, 2**64, rows * V, np.uint64))

    def exponential(self, rows: int, V: int, wanted: Array) -> Array:
        return self.draw(rows, V).exponential(wanted)

    def uniform(self, n: int) -> Array:
        """One 32-bit draw an element, of which 24 bits count."""
        return (self._bits.random_raw(n) & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2**-24)


class CPUDraws(Readable):
    """The draws of `CPU`: one 64-bit integer per element."""

    def __init__(self, bits: Array) -> None:
        self._bits = bits

    def exponential(self, wanted: Array) -> Array:
        return (-np.log1p(-self.least(wanted))).astype(np.float32)

    def least(self, wanted: Array) -> Array:
        """Return u itself, since −ln(1 − u) ≥ u: float64."""
        bits = self._bits.copy() if len(wanted) == len(self._bits) else self._bits[wanted]
        bits &= np.uint64(2**53 - 1)
        u = bits.astype(np.float64)
        u *= 2.0**-53
        return u


class CUDA(Readable):
    """``torch.manual_seed(seed)`` on a CUDA device: Philox4x32-10, one subsequence a thread.

    Blocks of 256 threads, at most ``multiprocessors`` × ``threads_per_multiprocessor`` / 256 of them; thread t writes
    elements t, t + S, t + 2S, t + 3S (S threads in all) from the four lanes of one block of Philox
    (``ATen/native/cuda/DistributionTemplates.h``, ``ATen/cuda/detail/…TransformationHelper.h``). The number of
    multiprocessors matters only for tensors of more than about 200,000 elements; the default is an H100's or H200's.

    The logarithm is the device's own (`cuda_log`). Checked bit for bit against torch 2.11 on an H100 and an H200.
    """

    def __init__(self, seed: int, multiprocessors: int = 132, threads_per_multiprocessor: int = 2048) -> None:
        self.seed, self.offset = seed, 0
        self.most_blocks = multiprocessors * (threads_per_multiprocessor // 256)

    def draw(self, rows: int, V: int) -> CUDADraws:
        n = rows * V
        threads = 256 * min(-(-n // 256), self.most_blocks)
        start = self.offset // 4
        self.offset += 4 * -(-n // (4 * threads))
        return CUDADraws(self.seed, start, threads)

    def exponential(self, rows: int, V: int, wanted: Array) -> Array:
        return self.draw(rows, V).exponential(wanted)

    def uniform(self, n: int) -> Array:
        """The same (0, 1] numbers with 1 turned into 0."""
        u = self.draw(1, n).uniform(np.arange(n))
        return np.where(u == 1, np.float32(0), u)


@dataclass(frozen=True)
class CUDADraws:
    """The draws of `CUDA`, computed only where they are read."""

    seed: int
    start: int  # each thread's first block of Philox
    threads: int

    def uniform(self, wanted: Array) -> Array:
        """Return cuRAND's float32 numbers in (0, 1] at these places."""
        # Element i is lane (i // S) mod 4 of thread i mod S, in that thread's (i // 4S)-th block.
        thread, lane, turn = wanted % self.threads, wanted // self.threads % 4, wanted // (4 * self.threads)
        words = philox(self.seed, self.start + turn, thread)
        word = np.take_along_axis(words, lane[None], axis=0)[0]
        return word.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33)

    def exponential(self, wanted: Array) -> Array:
        u = self.uniform(wanted)
        epsilon = np.float32(2**-23)
        return -np.where(u >= 1 - epsilon / 2, -epsilon / 2, log(u))

    least = exponential


def seeded(seed: int) -> np.random.MT19937:
    """Return the generator of ``torch.Generator().manual_seed(seed)`` on the CPU."""
    bits = np.random.MT19937()
    bits._legacy_seeding(seed & 0xFFFFFFFF)
    return bits


def randint(seed: int, high: int, size: int) -> Array:
    """Compute ``torch.randint(0, high, (size,), generator=…)`` on the CPU, for a `high` below 2**28: (size,) int64."""
    return (seeded(seed).random_raw(size) % np.uint64(high)).astype(np.int64)


def randperm(seed: int, n: int, first: int | None = None) -> Array:
    """Return the first ids (by default all) of ``torch.randperm(n, generator=…)`` on the CPU: (first,) int64.

    torch shuffles from the front: step i swaps places i and j[i] = i + draw mod (n − i). Here no swap is made; what
    stands where is read off j. Before step i, place q holds what the last step s < i with j[s] = q brought there, which
    is what place s held before step s; or q, if none did.
    """
    first = n if first is None else min(first, n)
    steps = np.arange(min(first, n - 1))
    j = steps + (seeded(seed).random_raw(len(steps)) % (n - steps).astype(np.uint64)).astype(np.int64)
    # Sorted by (j, step), the last step before i with the same j is i's neighbour.
    order = np.sort(j * len(steps) + steps) % max(1, len(steps))
    same = j[order[1:]] == j[order[:-1]]
    before = np.full(len(steps), -1)
    before[order[1:][same]] = order[:-1][same]

    # `source[i]`: the step whose place's content stood at place i before step i, followed back to its root.
    last = np.full(n, -1)
    moved = order[j[order] != order]
    last[j[moved]] = moved  # of equals the last is written: the highest step
    source = np.where(last[: len(steps)] >= 0, last[: len(steps)], steps)
    while not np.array_equal(source[source], source):
        source = source[source]
    out = np.where(before >= 0, source[before], np.where(j == steps, source, j))
    if first > len(steps):  # the last of all, which no step moves
        out = np.append(out, source[last[n - 1]] if last[n - 1] >= 0 else n - 1)
    return out


def philox(seed: int, counter: Array, subsequence: Array) -> Array:
    """Philox4x32-10 (Salmon et al. 2011) as cuRAND numbers it: (n,) counters and subsequences → (4, n) uint32.

    The 128-bit counter is `counter` below and `subsequence` above; the key is the seed.
    """
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter, subsequence = np.asarray(counter, np.uint64), np.asarray(subsequence, np.uint64)
    a, b, c, d = counter & mask, counter >> shift, subsequence & mask, subsequence >> shift
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, c = (second >> shift) ^ b ^ np.uint64(key0), (first >> shift) ^ d ^ np.uint64(key1)
        b, d = second & mask, first & mask
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d]).astype(np.uint32)

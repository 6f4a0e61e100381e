"""Measure the machine's memory and cores at this moment: python scripts/bench_memory.py [ROUNDS]

Decoding is bound by memory bandwidth, and on a shared machine this changes from minute to minute. The bandwidth of
reading a large array is only half of the picture: the latency of a single access matters too, and whether the processor
still prefetches the next cache line. Arithmetic and the second-level cache, which need no main memory, show whether the
cores themselves are as fast as before.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numba
import numpy as np
from benchmarks import machine
from numba import prange

from gpt2_np.system.memory import empty

LINE_WORDS = 8  # numbers of 64 bits in a line of the processor's cache
LINES = (256 << 20) // 64
PIECES = 48  # as many as a step of the 124M shape has matrices


@numba.njit(cache=True)
def follow(x: np.ndarray, place: int, steps: int) -> int:
    """Go from place to place, each of which says where the next one is; where that ends."""
    for _ in range(steps):
        place = x[place]
    return place


@numba.njit(parallel=True, fastmath=True, cache=True)
def squares(x: np.ndarray, times: int, out: np.ndarray) -> None:
    """Read one row of x a thread, again and again, multiplying and adding."""
    for row in prange(len(x)):
        total = np.float32(0)
        for turn in range(times):
            for i in range(x.shape[1]):
                total += (x[row, i] + turn) * x[row, i]
        out[row] = total


def chain(order: np.ndarray) -> np.ndarray:
    """A large array whose lines, in this order, each say where the next one begins."""
    x = empty((LINES * LINE_WORDS,), np.int64)
    x[order * LINE_WORDS] = np.roll(order, -1) * LINE_WORDS
    return x


def once(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(rounds: int) -> None:
    """Measure each in turn, and print medians, a line a round."""
    threads = numba.get_num_threads()
    random = np.random.default_rng(0).permutation(LINES)
    in_order, anywhere, places = chain(np.arange(LINES)), chain(random), [0, int(random[0]) * LINE_WORDS]
    big, sums = np.ones((1 << 13, 1 << 14), np.float32), np.empty(threads, np.float32)
    pieces = np.array_split(big, PIECES)
    near, nearer = np.ones((threads, 1 << 17), np.float32), np.ones((threads, 1 << 11), np.float32)

    def line_after_line() -> None:
        places[0] = follow(in_order, places[0], 50_000)

    def line_from_anywhere() -> None:
        places[1] = follow(anywhere, places[1], 5_000)

    def in_pieces() -> None:
        for piece in pieces:
            machine.read_all(piece, sums)

    work: dict[str, tuple[Callable[[], object], Callable[[float], float]]] = {
        "a line from anywhere, ns": (line_from_anywhere, lambda s: 1e9 * s / 5_000),
        "the next line, ns": (line_after_line, lambda s: 1e9 * s / 50_000),
        "reading, GB/s": (lambda: machine.read_all(big, sums), lambda s: big.nbytes / s / 1e9),
        f"in {PIECES} pieces, GB/s": (in_pieces, lambda s: big.nbytes / s / 1e9),
        "second-level cache, GB/s": (lambda: squares(near, 60, sums), lambda s: 60 * near.nbytes / s / 1e9),
        "first-level cache, GB/s": (lambda: squares(nearer, 4000, sums), lambda s: 4000 * nearer.nbytes / s / 1e9),
    }
    for run, _ in work.values():
        run()
    print(machine.name())
    for _ in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(15):
            for name, (run, _) in work.items():
                taken[name].append(once(run))
        figures = [f"{name}: {work[name][1](statistics.median(times)):.3g}" for name, times in taken.items()]
        print(time.strftime("%H:%M:%S"), "  ".join(figures), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

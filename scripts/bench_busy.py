"""Measure a decoding step while another program keeps a core busy, for several spin counts of waiting threads.

    python scripts/bench_busy.py [--scratch out/bench] [--spins 3000 300000]

The model has the 124M shape with random float32 weights. Each spin count (libgomp's GOMP_SPINCOUNT, whose own default
is 300,000) is measured in a process of its own, which first decodes on an idle machine and then beside busy programs on
half of the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench import checkpoint

BUSY = "while True: sum(range(10000))"
MEASURE = """
import json, os, subprocess, sys, time
import numpy as np
from gpt2_np import GPT2
session = GPT2.from_pretrained(sys.argv[1]).start(capacity=512)
session.feed(np.random.default_rng(0).integers(0, 50257, (1, 64)))
def steps(count):
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        session.feed(np.zeros((1, 1), np.int64))
        taken.append(time.perf_counter() - start)
    return taken
steps(5)
calm = steps(60)
others = [subprocess.Popen([sys.executable, "-c", sys.argv[2]]) for _ in range(max(1, os.cpu_count() // 2))]
time.sleep(0.5)
busy = steps(60)
for other in others:
    other.kill()
print(json.dumps([calm, busy]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path("out/bench"), help="where random checkpoints are kept")
    parser.add_argument("--spins", type=int, nargs="+", default=[3000, 300_000])
    parser.add_argument("--rounds", type=int, default=3, help="turns that each spin count takes")
    options = parser.parse_args()
    folder = checkpoint("gpt2", options.scratch)
    taken: dict[int, tuple[list[float], list[float]]] = {spins: ([], []) for spins in options.spins}
    for _ in range(options.rounds):
        for spins in options.spins:
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, str(folder), BUSY],
                check=True,
                capture_output=True,
                text=True,
                env=os.environ | {"GOMP_SPINCOUNT": str(spins)},
            )
            for kept, more in zip(taken[spins], json.loads(done.stdout), strict=True):
                kept.extend(more)
    for spins, (calm, busy) in taken.items():
        print(
            f"{spins:>8,} spins: {statistics.median(calm) * 1e3:.1f} ms a token (median) on a calm machine, "
            f"{statistics.mean(busy) * 1e3:.1f} (mean) beside a busy core, at worst {max(busy) * 1e3:.0f}"
        )


if __name__ == "__main__":
    main()

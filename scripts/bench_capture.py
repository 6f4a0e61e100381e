"""Measure what observing costs: a tap that captures nothing, and a capture of a corpus to disk.

    python scripts/bench_capture.py [--gib 6] [--folder FOLDER]

The model is the bundled one. First, passes without a tap and with a tap that captures nothing take turns on the same
implementation. Then a text file is written, captured into a folder (every residual stream and MLP activation), and both
are deleted; the script prints the rate and, after each GiB, the process's peak memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt2_np import GPT2
from gpt2_np.internals.capture import capture_corpus, estimate
from gpt2_np.internals.corpus import read_corpus
from gpt2_np.model.taps import Capture, no_tap

NAMES, LENGTH = ("blocks.*.resid_pre", "blocks.*.mlp.post"), 256


def unused_tap(model: GPT2, tokens: int, turns: int = 200) -> str:
    """A pass of so many tokens, with a tap that wants nothing in proportion to none."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, tokens))
    ratios, plain = [], []
    for _ in range(turns):
        seconds = []
        for tap in (no_tap, Capture([])):
            start = time.perf_counter()
            model.forward(ids, tap=tap)
            seconds.append(time.perf_counter() - start)
        plain.append(seconds[0])
        ratios.append(seconds[1] / seconds[0])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"{tokens} tokens: {statistics.median(plain) * 1000:.2f} ms; with a tap that wants nothing × {middle:.3f} "
        f"(half of the turns within {low:.3f} and {high:.3f})"
    )


def peak_mib() -> float:
    """The most memory that this process had so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def to_disk(model: GPT2, folder: Path, gib: int) -> Iterator[str]:
    """A capture of so many GiB, told one GiB at a time."""
    sentence = "One day the king went to the river and saw a bird. "
    a_token = estimate(model, NAMES, [LENGTH]) / LENGTH
    tokens = int(gib * 2**30 / a_token)
    corpus, each = folder / "corpus.txt", len(model.tokenizer.encode(sentence))
    with open(corpus, "w", encoding="utf-8") as file:
        for _ in range(tokens // (1000 * each)):
            file.write(sentence * 1000)
    yield f"corpus of {corpus.stat().st_size / 2**20:.0f} MiB; before the capture: {peak_mib():.0f} MiB"
    done, told, peaks, start = 0, 0, [], time.perf_counter()

    def progress(count: int) -> None:
        nonlocal done, told
        done += count
        if done * a_token // 2**30 > told:
            told += 1
            peaks.append(f"{peak_mib():.0f}")

    captured = capture_corpus(
        model, read_corpus(corpus, model.tokenizer, length=LENGTH), NAMES, folder / "captured", progress=progress
    )
    seconds, size = time.perf_counter() - start, sum(path.stat().st_size for path in captured.chunks)
    yield (
        f"{size / 2**30:.1f} GiB in {len(captured.chunks)} chunks, {len(captured):,} texts, {done:,} tokens: "
        f"{seconds:.0f} s, {size / 2**20 / seconds:.0f} MiB/s; peak memory after each GiB, in MiB: " + ", ".join(peaks)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where there is room for it (default: a temporary folder)")
    arguments = parser.parse_args()
    model = GPT2.from_pretrained(backend="numpy")
    for tokens in (1, 16, 256):
        print(unused_tap(model, tokens), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for line in to_disk(model, Path(folder), arguments.gib):
            print(line, flush=True)


if __name__ == "__main__":
    main()

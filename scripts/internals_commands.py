"""What the commands that look inside take at the real size: the part of `bench_internals` behind --commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from gpt2_np import GPT2

WORDS = ("king", "queen", "house", "garden", "walked", "into", "because", "the", "and", "old")


def commands(folder: Path, scratch: Path, rounds: int) -> None:
    """Print what each command takes: the least seconds of some rounds, and the most memory at the peak."""
    model = GPT2.from_pretrained(folder, backend="numpy")
    words: tuple[str, ...] = WORDS
    try:
        model.to_ids(" ".join(words))
    except ValueError:  # the random model has no bytes, but words of its own
        words = tuple(f"<{number}>" for number in range(7, 17))

    def text(tokens: int, start: int = 0) -> str:
        """The longest text of these words with at most so many tokens."""
        found = ""
        for number in range(tokens):
            more = f"{found} {words[(start + number * number) % len(words)]}".strip()
            if len(model.to_ids(more)) > tokens:
                break
            found = more
        return found

    corpus, page, lens = scratch / "corpus.txt", scratch / "page.html", scratch / "lens.safetensors"
    corpus.write_text("\n".join(text(200, start) for start in range(20)))
    clean, corrupted = text(14), text(14, 1)
    answers = ["--answer", f" {words[0]}", "--versus", f" {words[1]}"]
    rows: list[tuple[str, list[str], float, float]] = [
        ("inspect, 451 tokens", ["inspect", text(451), "--out", str(page)], 8, 1.6),
        ("inspect, 51 tokens", ["inspect", text(51), "--out", str(page)], 2.5, 1.0),
        ("tune, 20 texts of 200 tokens", ["internals", "tune", str(corpus), str(lens)], 15, 1.6),
        ("circuits", ["internals", "circuits"], 12, 1.6),
        ("patch, 14 tokens", ["internals", "patch", clean, corrupted, *answers], 8, 1.6),
    ]
    for name, arguments, most, memory in rows:
        seconds, peak = [], 0.0
        for _ in range(rounds):
            start = time.perf_counter()
            command = [sys.executable, "-m", "gpt2_np", *arguments, "--model", str(folder)]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(child.pid, 0)
            seconds.append(time.perf_counter() - start)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"error: {name} ended with status {child.returncode}")
            peak = max(peak, used.ru_maxrss / 1e6)
        size = f", a page of {page.stat().st_size / 1e6:.1f} MB" if arguments[0] == "inspect" else ""
        print(
            f"{name:<28} {min(seconds):6.2f} s (at most {most}), peak {peak:.2f} GB (at most {memory}){size}",
            flush=True,
        )

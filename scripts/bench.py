"""Measure speed, memory and quality beside transformers on torch, llama.cpp and CTranslate2, in one run.

    python scripts/bench.py                        the 124M shape and the bundled model
    python scripts/bench.py --write                the same, into the README and docs/speed.md, with the picture
    python scripts/bench.py --only decoding batches --rounds 5
    python scripts/bench.py --sizes gpt2 gpt2-medium gpt2-large gpt2-xl --text held_out.txt

Checkpoints of the published shapes are made from random weights in --scratch, since speed doesn't depend on their
values. Each engine runs in a process of its own; the engines take turns, one measurement in each round, and medians of
the rounds are reported. llama.cpp and CTranslate2 take part if they are installed (``pip install '.[bench]'``). Shares
of the memory bandwidth, and ratios between precisions, are measured in one process, where tokens alternate with plain
reads of memory.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks import machine, measure, report, training
from safetensors.numpy import save_file

from gpt2_np import GPT2
from gpt2_np.model.config import PUBLISHED, Config
from gpt2_np.model.params import shapes

ROOT = Path(__file__).parent.parent
GROUPS = (
    "decoding",
    "shares",
    "prefill",
    "scoring",
    "batches",
    "assisted",
    "sampling",
    "start",
    "memory",
    "bundled",
    "quality",
    "curves",
    "training",
)
LARGER = ("shares", "prefill")  # what is measured of the shapes behind the first, without other engines
SOME = ("float32", "int8")  # their precisions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["gpt2"], choices=PUBLISHED, help="published shapes to measure")
    parser.add_argument("--only", nargs="+", default=GROUPS, choices=GROUPS, help="groups of rows")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each engine takes")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of a decoding turn")
    parser.add_argument("--text", type=Path, help="a text that the bundled model's perplexity is taken on")
    parser.add_argument("--scratch", type=Path, default=Path("out/bench"), help="where random checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--write", action="store_true", help="write README.md, docs/speed.md and its picture")
    options = parser.parse_args()

    rows: list[measure.Row] = []
    curves: report.Curves = {}

    def keep() -> None:
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            figures = {"machine": machine.name(), "rows": [row.plain() for row in rows], "curves": curves}
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    for number, size in enumerate(options.sizes):
        folder = checkpoint(size, options.scratch)
        machine.forget(folder)
        groups = [group for group in options.only if number == 0 or group in LARGER]
        for group in groups:
            if group == "curves":
                curves[size] = measure.curves(folder)
            else:
                rows += tell(of_size(group, size, folder, options.rounds, options.tokens, alone=number > 0)())
            keep()
    if "bundled" in options.only:
        rows += tell(measure.bundled(options.rounds))
    if "quality" in options.only and options.text is not None:
        rows += tell(measure.quality(options.text.read_text(encoding="utf-8")))

    keep()
    if options.write:
        about = (
            f"Measured on: {machine.name()}; medians of {options.rounds} rounds in which the engines took turns "
            f"({2 * options.rounds + 1} of decoding, {max(2, options.rounds // 2)} of the batches)."
        )
        table = f"{about}\n\n{report.table(rows)}"
        report.write_between(ROOT / "README.md", "speed", f"{about}\n\n{report.short(rows)}")
        report.write_between(ROOT / "docs/speed.md", "speed", table)
        if curves:
            report.plot(curves, rows, ROOT / "docs/figures/speed.png")


def of_size(
    group: str, size: str, folder: Path, rounds: int, tokens: int, *, alone: bool
) -> Callable[[], list[measure.Row]]:
    """Return the functions that measure the groups of rows of one shape; `alone` leaves the other engines out."""
    if alone:
        rounds, tokens = max(1, rounds // 2), max(10, tokens // 2)
    if group == "assisted":
        from bench_assisted import rows as assisted

        return lambda: assisted(folder, rounds)
    return {
        # Its ratios are those that the memory's speed, which changes from minute to minute, moves most.
        "decoding": lambda: measure.decoding(size, folder, 2 * rounds + 1, tokens),
        "shares": lambda: measure.side_by_side(size, folder, rounds, tokens, SOME if alone else measure.PRECISIONS),
        "prefill": lambda: measure.prefill(size, folder, rounds, alone=alone),
        "scoring": lambda: measure.scoring(size, folder, max(2, rounds // 2)),
        "batches": lambda: measure.batches(size, folder, max(2, rounds // 2)),
        "sampling": lambda: [measure.sampled_token()],
        "start": lambda: [measure.first_token(size, folder), measure.first_compilation(size, folder)],
        "memory": lambda: measure.peak_memory(size, folder),
        "training": lambda: training.rows(size, folder, small_ones(folder.parent), rounds),
    }.get(group, list)


def tell(rows: list[measure.Row]) -> list[measure.Row]:
    """Print rows as they come."""
    for row in rows:
        print(report.line(row), flush=True)
    return rows


def small_ones(scratch: Path) -> dict[int, Path]:
    """Folders with random checkpoints of 2 layers, 128 wide, by the size of their vocabulary: the bundled model's and
    GPT-2's.
    """
    configs = {"small": GPT2.from_pretrained().config, "small-gpt2": PUBLISHED["gpt2"]}
    return {
        config.vocab_size: checkpoint(
            name, scratch, replace(config, n_layer=2, n_embd=128, n_head=4, n_positions=training.SMALL[1])
        )
        for name, config in configs.items()
    }


def checkpoint(size: str, scratch: Path, config: Config | None = None) -> Path:
    """A folder with a random checkpoint of a published shape, or of a shape that is given."""
    folder = scratch / size
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        config = PUBLISHED[size] if config is None else config
        tensors = {
            key: random.standard_normal(shape, np.float32) * np.float32(0.02) for key, shape in shapes(config).items()
        }
        save_file(tensors, folder / "model.safetensors")
        fields = {key: value for key, value in vars(config).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(fields | {"model_type": "gpt2"}))
    return folder


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()

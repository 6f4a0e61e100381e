"""Broken model folders by the thousand: each must load, or be refused in one line that names its cause.

``pytest -m fuzz -n 0`` breaks 20,000; ``python tests/fuzz_folders.py FIRST COUNT`` as many as you like, and prints the
refusals by kind. A folder is made anew from its number alone: ``python tests/fuzz_folders.py 17 1`` repeats one.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from broken_folders import NAMES, TEXT, base, break_one
from limits import Hang, limits

from gpt2_np import GPT2
from gpt2_np.cli import in_words
from gpt2_np.cli.look import passed_over

CPU_SECONDS, SECONDS = 2.0, 60.0  # that one folder may take

FILES = re.compile(r"\.(json|safetensors|txt)\b")


def use(folder: Path) -> list[str]:
    """Load a folder and write two tokens with it, as far as each of its parts goes; the refusals' texts."""
    refused: list[str] = []

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (ValueError, OSError, MemoryError) as error:
            refused.append(in_words(error))
            return None

    model = attempt(lambda: GPT2.from_pretrained(folder, backend="numpy"))
    if model is None:
        return refused
    attempt(lambda: passed_over(folder, model.config))
    ids = attempt(lambda: model.tokenizer.encode(TEXT))
    if ids is not None:
        attempt(lambda: model.tokenizer.decode(ids))
    logits = attempt(lambda: model([1, 2]))
    assert logits is None or np.isfinite(logits).all(), "logits that are no numbers"
    attempt(lambda: model.generate([1, 2], max_new_tokens=2))
    attempt(
        lambda: model.generate(
            TEXT[:3] if ids is not None else [1, 2], max_new_tokens=2, seed=0, generation_config=True
        )
    )
    return refused


def one(number: int, folder: Path) -> tuple[list[str], list[str]]:
    """(the refusals, the faults found) of the folder that a number makes."""
    dice = random.Random(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    base(folder, dice)
    with tempfile.TemporaryFile() as noise:
        done = [break_one(folder, dice) for _ in range(dice.choice([0, 1, 1, 1, 2, 3]))]
        kept = [os.dup(1), os.dup(2)]
        os.dup2(noise.fileno(), 1), os.dup2(noise.fileno(), 2)
        refused, faults = [], []
        try:
            with warnings.catch_warnings(), limits(CPU_SECONDS, SECONDS):
                warnings.simplefilter("error")
                refused = use(folder)
        except Hang:
            faults = ["it hangs"]
        except BaseException as error:
            faults = [traceback.format_exc() if not isinstance(error, KeyboardInterrupt) else "interrupted"]
        finally:
            for place, old in enumerate(kept, 1):
                os.dup2(old, place), os.close(old)
        noise.seek(0)
        printed = noise.read()
    if printed:
        faults.append(f"something was printed: {printed[:300]!r}")
    for message in refused:
        named = (
            FILES.search(message)
            or "tokenizer" in message
            or str(folder) in message
            or any(name in message for name in NAMES)
        )
        if "\n" in message or not message.strip() or len(message) > 4000 or not named:
            faults.append(f"not one line that names its cause: {message[:500]!r}")
    return refused, [f"folder {number}, {'; '.join(done)}: {fault}" for fault in faults]


def run(first: int, count: int, folder: Path) -> tuple[list[str], Counter[str]]:
    """(all faults, refusals by kind) of `count` folders from number `first` on."""
    faults: list[str] = []
    kinds: Counter[str] = Counter()
    for number in range(first, first + count):
        refused, found = one(number, folder)
        faults += found
        kinds["sound" if not refused else re.sub(r"[\d'\"]+", "#", refused[0].replace(str(folder), ""))[:70]] += 1
    return faults, kinds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found, by_kind = run(int(sys.argv[1]), int(sys.argv[2]), Path(place) / "model")
    for kind, times in by_kind.most_common(40):
        print(f"{times:>6}  {kind}")
    print(
        f"{sum(by_kind.values())} folders, {len(by_kind)} kinds of outcome, {by_kind['sound']} sound, "
        f"{len(found)} faults"
    )
    print("\n".join(found[:12]))

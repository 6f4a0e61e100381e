"""Broken bundles, captures, lenses, dictionaries, shards, corpora and training runs by the thousand.

Commands that read them must work, or refuse them in one line that names the cause. ``pytest -m fuzz -n 0`` breaks
5,000; ``python tests/fuzz_files.py FIRST COUNT`` as many as you like, and prints the refusals by kind. What is broken,
and how, follows from a number alone: ``python tests/fuzz_files.py 17 1`` repeats one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broken_folders import JUNK, VALUES, break_one, change, whole
from file_kinds import LEARN, PAIR, TRAIN, make, table
from surroundings import Around, cases, outcome, report, run_command

Commands = list[list[str | Path]]
OF = ["-m", Path("model")]
NAMES = ["--names", "blocks.*.resid_pre", "--length", "12"]


def bundles(dice: random.Random) -> Commands:
    how = dice.choice([[], [], ["--json"], ["--tolerance", "0.01"]])
    return [["parity", "check", "bundle", "--against", "theirs", *how]]


def captures(dice: random.Random) -> Commands:
    return [
        ["internals", "capture", "text.txt", "captured", *NAMES, *OF],
        ["internals", "train-dictionary", "captured", "new", *LEARN, *OF],
        ["corpus", "merge", "captured", "captured", "merged"],
    ]


def tuned(dice: random.Random) -> Commands:
    return [["internals", "lens", "the cat", "--tuned", "tuned.safetensors", *OF]]


def jacobian(dice: random.Random) -> Commands:
    fit = "--length 12 --skip-first 1 --texts 3 --resume".split()
    return [
        ["internals", "lens", "the cat", "--jacobian", "jacobian.safetensors", *OF],
        ["corpus", "merge", "jacobian.safetensors", "jacobian.safetensors", "merged"],
        ["internals", "merge-lenses", "both", "jacobian.safetensors", "jacobian.safetensors"],
        ["internals", "jacobian-lens", "text.txt", "jacobian.safetensors", *fit, *OF],
    ]


def figures(dice: random.Random) -> Commands:
    return [["corpus", "merge", "figures.safetensors", "figures.safetensors", "merged"]]


def dictionaries(dice: random.Random) -> Commands:
    one = ["--dictionary", "sae", *OF]
    return dice.sample(
        [
            ["internals", "features", "the cat", *one],
            ["internals", "feature-attribution", "the cat", "--answer", "t", *one],
            ["internals", "feature-steer", "the cat", "--ablate", "1", "--max-new-tokens", "1", *one],
            ["internals", "feature", "text.txt", "1", "--length", "12", *one],
            ["internals", "evaluate-dictionary", "text.txt", "--length", "12", *one],
            ["inspect", "the cat", "--out", "page.html", *one],
            ["internals", "train-dictionary", "captured", "sae", *LEARN, "--resume", *OF],
        ],
        2,
    )


def scores(dice: random.Random) -> Commands:
    return [
        ["corpus", "score", "rows", "scores", "--shard-rows", "2", *OF],
        ["corpus", "merge", "scores", "scores", "merged"],
    ]


def texts(dice: random.Random) -> Commands:
    return [
        ["corpus", "generate", "rows", "texts", "-n", "1", "--shard-rows", "2", "--field", "text", *OF],
        ["corpus", "merge", "texts", "texts", "merged"],
    ]


def shards(dice: random.Random) -> Commands:
    return [
        ["corpus", "capture", "rows", "shards", *NAMES, *OF],
        ["corpus", "merge", "shards", "shards", "merged"],
        ["internals", "train-dictionary", "shards", "new", *LEARN, *OF],
    ]


def rows(dice: random.Random) -> Commands:
    file = Path("rows") / dice.choice(["a.jsonl", "b.parquet"])
    few = ["-n", "1", "--backend", "numpy"]
    return dice.sample(
        [
            ["corpus", "score", "rows", "out", "--shard-rows", dice.choice(["1", "3", "1024"]), *OF],
            ["corpus", "score", file, "out", "--field", dice.choice(["text", "prompt", "id", "x"]), *OF],
            ["corpus", "generate", "rows", "out", "-n", "1", "--field", dice.choice(["text", "prompt"]), *OF],
            ["corpus", "capture", "rows", "out", *NAMES, *OF],
            ["generate", "--prompts", "rows/a.jsonl", "--output", "out.jsonl", *few, *OF],
            ["score", "--prompts", "rows/a.jsonl", "--backend", "numpy", *OF],
            ["train", "rows/a.jsonl", "--out", "out", *TRAIN, *OF],
        ],
        2,
    )


def corpora(dice: random.Random) -> Commands:
    short, numpy = ["--length", "12", *OF], ["--backend", "numpy", *OF]
    return dice.sample(
        [
            ["internals", "neuron", "0", "1", "text.txt", *short],
            ["internals", "tune", "text.txt", "out", *short],
            ["internals", "capture", "text.txt", "out", *NAMES, *OF],
            ["internals", "jacobian-lens", "text.txt", "out", "--skip-first", "1", "--texts", "2", *short],
            ["internals", "evaluate-dictionary", "text.txt", "--dictionary", "sae", *short],
            ["internals", "feature", "text.txt", "1", "--dictionary", "sae", *short],
            ["internals", "ablate", "the cat", "--answer", "t", "--how", "mean", "--reference", "text.txt", *OF],
            ["score", "--file", "text.txt", *numpy],
            ["score", "--prompts", "text.txt", *numpy],
            ["evaluate", "--divergence", "text.txt", "--dtype", "bfloat16", *numpy],
            ["corpus", "score", "text.txt", "out", *OF],
            ["train", "text.txt", "--out", "out", *TRAIN, *OF],
        ],
        2,
    )


def pairs(dice: random.Random) -> Commands:
    given = ["--pairs", "pairs.jsonl", *OF]
    return [["internals", dice.choice(["attribute", "edges"]), *given]]


def runs(dice: random.Random) -> Commands:
    return [
        ["train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF],
        ["generate", "the", "-n", "1", "-m", "run", "--backend", "numpy"],
    ]


# What is broken → what reads it.
KINDS: dict[str, tuple[list[str], Callable[[random.Random], Commands]]] = {
    "bundle": (["bundle", "theirs"], bundles),
    "capture": (["captured"], captures),
    "tuned lens": (["tuned.safetensors"], tuned),
    "Jacobian lens": (["jacobian.safetensors"], jacobian),
    "figures": (["figures.safetensors"], figures),
    "dictionary": (["sae"], dictionaries),
    "scores": (["scores"], scores),
    "texts": (["texts"], texts),
    "captured shards": (["shards"], shards),
    "rows": (["rows"], rows),
    "corpus": (["text.txt"], corpora),
    "pairs": (["pairs.jsonl"], pairs),
    "training run": (["run"], runs),
}


def spoil(place: Path, what: list[str], dice: random.Random) -> str:
    """Break one of the files that a kind is made of; returns what was done."""
    path = place / dice.choice(what)
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if not files:
        return "nothing is left"
    file = dice.choice(files)
    if file.suffix == ".jsonl" and dice.random() < 0.7:
        done = line_of(file, dice)
    elif file.suffix == ".parquet" and dice.random() < 0.5 and path.name == "rows":
        done = columns(file, dice)
    elif file.suffix in (".csv", ".txt") and dice.random() < 0.7:
        done = words(file, dice)
    elif file.suffix in (".json", ".safetensors"):
        with tempfile.TemporaryDirectory() as alone:  # so that this very file is broken
            shutil.move(file, alone)
            done = break_one(Path(alone), dice)
            for one in Path(alone).iterdir():
                shutil.move(one, file.parent)
    else:
        done = whole(file, dice)
    return f"{file.relative_to(place)}: {done}"


def line_of(file: Path, dice: random.Random) -> str:
    """A line of JSONL: its values changed, or something else in its place."""
    lines = file.read_bytes().split(b"\n")
    at = dice.randrange(len(lines))
    if dice.random() < 0.3:
        lines[at] = dice.choice(JUNK)
        done = f"line {at} is junk"
    else:
        content = dict(dice.choice([PAIR, {"id": 1, "text": "the", "prompt": "cat"}]))
        done = f"line {at}: {change(content, dice)}"
        if dice.random() < 0.5:
            content[dice.choice(["id", "text", "prompt", "stride", "ids", *content])] = value = dice.choice(VALUES)
            done += f", {value!r:.40}"
        lines[at] = json.dumps(content).encode()
    file.write_bytes(b"\n".join(lines))
    return done


def columns(file: Path, dice: random.Random) -> str:
    """A table of Parquet with a column of another kind, or without it."""
    import datetime
    import decimal

    given: list[list[Any]] = [
        [1, 2], [1.5, float("nan")], [None, None], ["a", None], ["", "x" * 5000], [[1, 2], [3]], [[], [2**40]],
        [["a"], ["b"]], [{"a": 1}, {"a": 2}], [b"a", b"\xff"], [True, False], [2**62, -(2**62)], [[1.5], [None]],
        [datetime.date(2020, 1, 1), None], [decimal.Decimal("1.5"), None], ["\x1b[2J", "\0"], [[-1], [10**6]],
    ]  # fmt: skip
    names = dice.sample(["id", "text", "prompt", "stride", "max_new_tokens", "x"], 3)
    chosen = {name: dice.choice(given) for name in names}
    rows = [dict(zip(chosen, row, strict=True)) for row in zip(*chosen.values(), strict=True)]
    table(file, rows if dice.random() < 0.9 else [])
    return f"{chosen!r:.200}"


def words(file: Path, dice: random.Random) -> str:
    """A text with something else in it."""
    text = file.read_bytes()
    added = dice.choice(
        [b"\xff", b"\0", b"\r\n", b"<|endoftext|>", b"\n<|endoftext|>\n" * 3, b"x" * 30000, b"\xe2\x80\xa8", b",,,,",
         b"\xed\xa0\x80", b"-1,x,nan", b"\n\n", "🙂".encode() * 50, b"\x1b[2J", b"--- step 99999999999999999999"]
    )  # fmt: skip
    at = dice.randrange(len(text) + 1)
    file.write_bytes(text[:at] + added + text[at:])
    return f"{added[:20]!r} at {at}"


def one(number: int, sound: Path, place: Path) -> tuple[str, list[str]]:
    """(what came of it, the faults found) of the files that a number breaks."""
    dice = random.Random(number)
    kind = list(KINDS)[number % len(KINDS)]
    what, commands = KINDS[kind]
    shutil.copytree(sound, place, ignore=shutil.ignore_patterns("model"), symlinks=True)
    (place / "model").symlink_to(sound / "model")
    done = [spoil(place, what, dice) for _ in range(dice.choice([0, 1, 1, 1, 2, 3]))]
    results, faults = [], []
    os.chdir(place)
    for arguments in commands(dice):
        code, said, found = run_command([str(word) for word in arguments], Around())
        results.append(outcome(code, said))
        faults += found
    os.chdir(sound)
    shutil.rmtree(place, ignore_errors=True)
    return f"{kind}: {results[0]}", [f"files {number}, {'; '.join(done)}: {fault}" for fault in faults]


def run(first: int, count: int, tell: Callable[[str], object] = lambda fault: None) -> tuple[list[str], Counter[str]]:
    """(all faults, outcomes by kind) of what `count` numbers break, from `first` on; `tell` hears of faults at once."""
    with tempfile.TemporaryDirectory() as folder:
        sound = make(Path(folder) / "sound")
        return cases(lambda number: one(number, sound, Path(folder) / f"broken-{number}"), first, count, tell)


if __name__ == "__main__":
    report(run, int(sys.argv[1]), int(sys.argv[2]))

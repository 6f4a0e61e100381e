"""Command lines, streams and environments at random: each must work, or fail in one line that names the cause.

``python tests/fuzz_commands.py FIRST COUNT`` tries cases and prints what came of them; a number is a case, always the
same. Commands run in this process, by `surroundings`. Every command and its options come from the command line itself,
so that a new one joins by itself. Never drawn is what reaches beyond this process, or takes minutes: Ray as an engine,
a task of lm-evaluation-harness that exists and would be downloaded, the parity suite itself.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from file_kinds import TEXT, make
from surroundings import Around, cases, outcome, report, run_command

from gpt2_np.cli import COMMANDS, cli

TEXTS = [
    "The king",
    "Once upon a time",
    "",
    " ",
    "🙂 “é”",
    "-5 degrees",
    "\n",
    "a\x1b[31mb",
    "\x00",
    "\udcff",
    "x" * 9000,
]
TEXTS += ["<|endoftext|>", "-", "--", "a b c d e", "名前", "\u202eabc", " he", " king"]
NUMBERS = ["0", "1", "2", "-1", "3.5", "1e9", "nan", "inf", "x", "", "99999999999999999999", "0x10", "١"]
ENCODINGS = ["utf-8", "utf-8", "ascii", "cp1252", "latin-1", "utf-16"]
ENVIRONMENT = {
    "GPT2_NP_MODEL": ["tales", "{}/nowhere", "", "gpt2", "\x1b[0m", "x/y/z"],
    "GPT2_NP_DTYPE": ["float32", "float64", "int9", ""],
    "GPT2_NP_BACKEND": ["numpy", "numpy", "torch7"],  # numba would be compiled here
    "GPT2_NP_DEVICE": ["cpu", "tpu", ""],
    "COLUMNS": ["20", "0", "-3", "x", "1000"],
}
WRITTEN = ("output", "trace_file", "out", "cache", "save", "sums", "scatter")
# Some sound values, by a parameter's name, beside those that its type allows; a path is one of `file_kinds`.
SOUND: dict[str, list[str]] = {
    "model": ["tales", "tales", "{}/model", "{}/nowhere", "gpt2"],
    "assistant_model": ["tales", "{}/model", "{}/nowhere"],
    "dictionary": ["tales", "{}/sae", "{}/captured", "{}/nowhere", "gpt2-small-res-jb"],
    "dictionary_id": ["x", "blocks.0.hook_resid_pre", "../sae"],
    "answer": [" he", " she", " king", "t", " hehehe", "", "🙂"],
    "versus": [" he", " she", "h", " hehehe", ""],
    "names": ["blocks.*.resid_pre", "blocks.0.mlp.post", "nope", "*", ""],
    "point": ["resid_pre", "attn.z", "nope", "blocks.0.resid_pre"],
    "receivers": ["blocks.1.attn.q:0", "blocks.1.mlp.pre", "unembed", "blocks.9.attn.q:x"],
    "head": ["0:1", "1.0", "9:9", "0,1", "x"],
    "hook_name": ["blocks.0.hook_resid_pre", "blocks.0.resid_pre", "nope"],
    "hook_name_out": ["blocks.1.hook_resid_pre", "nope"],
    "architecture": ["topk", "standard", "gated", "jumprelu", "nope"],
    "field": ["text", "prompt", "x", ""],
    "id_field": ["id", "text", ""],
    "tasks": ["nope", "a,b", ",", ""],
    "gen_kwargs": ["temperature=0", "x", "a=b=c", "=1", ""],
    "host": ["127.0.0.1", "localhost", "::1", "256.1.1.1", "", "0.0.0.0"],
    "port": ["0", "0", "1", "65535", "70000"],
    "address": ["auto", "x"],
    "ids": ["1 2 3", "1 x", "", "-1", "99999"],
    "ablate": ["0", "1", "99999"],
    "add": ["1:2", "1", "x:y", "1:nan"],
    "set": ["1:2", "1", "99999:1"],
    "lr_scheduler_type": ["cosine", "constant", "nope"],
    "layer": ["0", "1", "-1", "99"],
    "transcoders": ["{}/sae", "{}/nowhere"],
}
# The files of `file_kinds` that a parameter of a command may be given.
THERE = (
    "text.txt rows/a.jsonl rows/b.parquet rows pairs.jsonl captured sae scores texts shards bundle theirs run model "
)
THERE += "tuned.safetensors jacobian.safetensors figures.safetensors"
# What keeps a case small, where it isn't refused.
SMALL: dict[str, list[str]] = {
    "generate": ["-n", "2"],
    "corpus generate": ["-n", "1"],
    "train": "--steps 1 --batch-size 1 --context 8 --sample-tokens 2".split(),
    "internals train-dictionary": "--steps 1 --batch-size 8 --d-sae 8 --k 2".split(),
    "internals jacobian-lens": "--texts 1 --length 8 --skip-first 1".split(),
    "internals evaluate-dictionary": ["--length", "12"],
    "internals heads": ["--rows", "1", "--length", "8"],
    "internals task": ["--count", "2"],
    "internals graph": ["--features", "4"],
    "internals feature-steer": ["--max-new-tokens", "2"],
    "internals function-vector": ["--count", "2"],
    "internals patchscope": ["--max-new-tokens", "2"],
    "parity export": ["--tokens", "2"],
}


def every() -> list[str]:
    """The names of all commands, "internals lens" among them."""
    found = []
    for name in COMMANDS:
        command = command_of([name])
        if isinstance(command, click.Group):
            found += [f"{name} {one}" for one in command.list_commands(click.Context(command))]
        else:
            found.append(name)
    return found


def command_of(words: list[str]) -> click.Command | None:
    """The command that words name, or None."""
    found: Any = cli
    for word in words:
        found = found.get_command(click.Context(found), word)
        if found is None:
            return None
    return found


class Case:
    """One command with its surroundings."""

    def __init__(self, number: int, place: Path) -> None:
        self.dice = dice = random.Random(number)
        self.place = place
        stdin = [b"", b"The king", b"\xff\xfe", b'{"prompt": "a"}\n[1]\n', b"a\nb\n" * 3]
        environment = {name: dice.choice(values) for name, values in ENVIRONMENT.items() if dice.random() < 0.06}
        self.around = Around(
            encoding=dice.choice(ENCODINGS),
            out_fails=dice.choice([0] * 9 + [errno.ENOSPC, errno.EPIPE, errno.EBADF]),
            err_fails=dice.choice([0] * 9 + [errno.ENOSPC]),
            stdin=dice.choice(stdin),
            environment={"GPT2_NP_BACKEND": "numpy"} | environment,
        )
        self.arguments = self.line(number)

    def line(self, number: int) -> list[str]:
        """The words of a command line."""
        dice = self.dice
        if dice.random() < 0.04:
            return [
                dice.choice(["genrate", "", "--help", "--version", "-x", "internals", "\x1b[0m", "logit", "corpus"])
            ]
        names = [*every(), *["generate"] * 6, "score", "corpus score", "parity chekc"]
        name = dice.choice(names)
        words = name.split()
        found = command_of(words)
        parameters = list(found.params) if found is not None else []
        kinds = [one for one in parameters if isinstance(one, click.Option)]
        small = SMALL.get(name, [])
        given = small if dice.random() < 0.95 else []
        for parameter in parameters:
            if isinstance(parameter, click.Argument):
                few = dice.choice([1, 1, 2]) if parameter.nargs < 0 else 1
                words += [self.value(parameter) for _ in range(few if dice.random() < 0.95 else 0)]
            elif parameter.required and dice.random() < 0.95:
                words += [parameter.opts[0], self.value(parameter)]
        words += given
        for parameter in dice.sample(kinds, min(len(kinds), dice.choice([0, 0, 1, 1, 2, 3]))):
            if set(parameter.opts) & set(given):
                continue
            words.append(dice.choice([*parameter.opts, *parameter.secondary_opts]))
            if not parameter.is_flag and dice.random() < 0.97:
                words.append(self.value(parameter))
        of_models = any(one.name == "model" for one in kinds) and not {"-m", "--model"} & set(words)
        if of_models and dice.random() < 0.5:
            words += ["-m", str(self.place / "sound" / "model")]
        if any("--json" in one.opts for one in kinds) and dice.random() < 0.2:
            words.append("--json")
        return words

    def value(self, parameter: click.Parameter) -> str:
        """A value for a parameter: often a sound one, else anything."""
        dice, name, kind = self.dice, str(parameter.name), parameter.type
        if dice.random() < 0.1:
            return dice.choice([*TEXTS, *NUMBERS])
        if name == "backend":
            return "numpy"
        if name == "engine":
            return "local"  # Ray would start processes that outlive the case
        if isinstance(kind, click.Choice):
            return str(dice.choice(list(kind.choices)))
        if name in SOUND:
            return dice.choice(SOUND[name]).replace("{}", str(self.place / "sound"))
        if kind.name in ("path", "file"):
            if name in WRITTEN or (name in ("lens", "folder") and dice.random() < 0.5):
                new = str(self.place / f"{dice.randrange(10**6)}.{dice.choice(['json', 'png', 'html', 'x'])}")
                return dice.choice([new, new, new, self.file(), str(self.place), "/dev/null/a", "-", "/dev/full"])
            there = str(self.place / "sound" / dice.choice(THERE.split()))
            return dice.choice(
                [there, there, there, self.file(), str(self.place), "/dev/null", str(self.place / "nowhere"), "-"]
            )
        if "int" in kind.name or "float" in kind.name:
            return dice.choice(["0", "1", "2", "3", "0.5", *NUMBERS])
        return dice.choice(TEXTS)

    def file(self) -> str:
        """A file of the user's, or a name for one."""
        dice = self.dice
        content = dice.choice(
            [
                TEXT.encode(), b"The king was a king.\n" * 9, b"", b"\xff\xfe\x00", b"{", b'{"prompt": "a", "n": 1}\n',
                b'{"prompt": "a", "max_new_tokens": 1}\n{"text": "b"}\n', b"[" * 5000, b"0.5 0.2 x", b"a\nb\n", None,
                b'{"index": 0, "prompt": "a"}\n', b"\x1b[2J\n" * 3, b"start: \"a\"\n", b"<html>",
            ]
        )  # fmt: skip
        path = self.place / f"{dice.randrange(10**6)}{dice.choice(['', '.jsonl', '.txt', '.html', '.png', '.json'])}"
        if content is not None:
            path.write_bytes(content)
        return str(path)


def one(number: int, place: Path) -> tuple[str, list[str]]:
    """(what came of it, the faults found) of the command that a number draws."""
    case = Case(number, place)
    os.chdir(place)
    code, said, found = run_command(case.arguments, case.around)
    return outcome(code, said), [f"case {number}, {fault}" for fault in found]


def run(first: int, count: int, tell: Callable[[str], object] = lambda fault: None) -> tuple[list[str], Counter[str]]:
    """(all faults, outcomes by kind) of `count` commands from number `first` on; `tell` hears of each fault at once."""
    with tempfile.TemporaryDirectory() as place:
        make(Path(place) / "sound")
        return cases(lambda number: one(number, Path(place)), first, count, tell)


if __name__ == "__main__":
    report(run, int(sys.argv[1]), int(sys.argv[2]))

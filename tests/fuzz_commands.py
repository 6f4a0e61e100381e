"""Command lines, streams and environments at random: each must work, or fail in one line that names the cause.

``python tests/fuzz_commands.py FIRST COUNT`` tries cases and prints what came of them; a number is a case, always the
same.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from unittest import mock

from limits import Hang, limits

from gpt2_np.cli import cli, main
from gpt2_np.text.gpt2 import GPT2

CPU_SECONDS, SECONDS = 60.0, 300.0  # that one command may take
COMMANDS = ("generate", "logits", "score", "choose", "info", "inspect", "parity", "train", "internals")
EXPERIMENTS = (
    "lens",
    "heads",
    "attention",
    "ablate",
    "patch",
    "path",
    "circuits",
    "steer",
    "neuron",
    "tune",
    "capture",
)
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
    "GPT2_NP_MODEL": ["tales", "/nowhere", "", "gpt2", "\x1b[0m", "x/y/z"],
    "GPT2_NP_DTYPE": ["float32", "float64", "int9", ""],
    "GPT2_NP_BACKEND": ["numpy", "numpy", "torch7"],  # numba would be compiled here
    "GPT2_NP_DEVICE": ["cpu", "tpu", ""],
    "COLUMNS": ["20", "0", "-3", "x", "1000"],
}
FILES = ("file", "prompts", "output", "trace_file", "out", "corpus", "folder")
WRITTEN = ("output", "trace_file", "out")
# What an error may speak of besides what was typed.
CAUSES = set(
    "prompt text texts file line standard output input argument option command choice choices tokens ids JSON model "
    "beams sampling folder picture lens layer head receiver schema grammar answer corpus patterns matplotlib "
    "activation bundle".split()
)


class Stream(io.RawIOBase):
    """A stream that fails, or that remembers."""

    def __init__(self, failure: int = 0) -> None:
        self.failure, self.content = failure, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        self.content += bytes(content)  # type: ignore[call-overload]
        return len(bytes(content))  # type: ignore[call-overload]


class Case:
    """One command with its surroundings."""

    def __init__(self, number: int, place: Path) -> None:
        self.dice = dice = random.Random(number)
        self.place = place
        self.encoding = dice.choice(ENCODINGS)
        self.out_fails = dice.choice([0] * 7 + [errno.ENOSPC, errno.EPIPE, errno.EBADF])
        self.err_fails = dice.choice([0] * 9 + [errno.ENOSPC])
        self.stdin = dice.choice([b"", b"The king", b"\xff\xfe", b'{"prompt": "a"}\n[1]\n', b"a\nb\n" * 3])
        self.environment = {name: dice.choice(values) for name, values in ENVIRONMENT.items() if dice.random() < 0.15}
        self.environment.setdefault("GPT2_NP_BACKEND", "numpy")
        self.arguments = self.line()

    def line(self) -> list[str]:
        """The words of a command line."""
        dice = self.dice
        if dice.random() < 0.06:
            return [dice.choice(["genrate", "", "--help", "--version", "-x", "internals", "\x1b[0m", "logit"])]
        command = dice.choice([*COMMANDS, *["generate"] * 4, "internals", "score"])
        if command == "internals":
            words = [command, dice.choice(EXPERIMENTS)]
        elif command == "parity":
            words = [command, dice.choice(["export", "check", "chekc"])]
        else:
            words = [command]
        found = self.command(words)
        kinds = [one for one in (found.params if found is not None else ()) if one.param_type_name == "option"]
        for parameter in found.params if found is not None else ():
            if parameter.param_type_name == "argument" and dice.random() < 0.93:
                words += [self.value(parameter) for _ in range(dice.choice([1, 1, 2]) if parameter.nargs < 0 else 1)]
            elif parameter.required and dice.random() < 0.9:
                words += [parameter.opts[0], self.value(parameter)]
        for parameter in dice.sample(kinds, min(len(kinds), dice.choice([0, 0, 1, 1, 2, 3]))):
            words.append(dice.choice([*parameter.opts, *parameter.secondary_opts]))
            if not getattr(parameter, "is_flag", False) and dice.random() < 0.97:
                words.append(self.value(parameter))
        if command == "generate" and dice.random() < 0.9:
            words += ["-n", dice.choice(["1", "2", "3"])]
        if command == "train":
            words += ["--steps", dice.choice(["0", "-1", "x"])]  # one that is refused: training has its own tests
        if dice.random() < 0.3:
            words.append("--json")
        return words

    @staticmethod
    def command(words: list[str]):  # type: ignore[no-untyped-def]
        """The command that words name, or None."""
        found = cli
        for word in words:
            found = found.get_command(None, word)  # type: ignore[arg-type, assignment, attr-defined]
            if found is None:
                return None
        return found

    def value(self, parameter: object) -> str:
        """A value for a parameter: often a sound one, else anything."""
        dice, name, kind = self.dice, parameter.name, parameter.type  # type: ignore[attr-defined]
        if dice.random() < 0.12:
            return dice.choice([*TEXTS, *NUMBERS])
        if name == "backend":
            return "numpy"
        if hasattr(kind, "choices"):
            return str(dice.choice(list(kind.choices)))
        if name in ("model", "assistant_model"):
            return dice.choice(["tales", "tales", "/nowhere", "gpt2", str(self.place)])
        if kind.name in ("path", "file") or name in (
            "file",
            "prompts",
            "output",
            "trace_file",
            "out",
            "corpus",
            "folder",
        ):
            full = "/dev/full" if name in WRITTEN else "/dev/null"  # whoever reads it comes to no end
            return dice.choice([self.file(), self.file(), str(self.place), "/dev/null/a", "-", full])
        if "int" in kind.name or "float" in kind.name:
            return dice.choice(["0", "1", "2", "3", "0.5", *NUMBERS])
        if name in ("answer", "versus"):
            return dice.choice([" he", " she", " king", " hehehe", "", "🙂"])
        return dice.choice(TEXTS)

    def file(self) -> str:
        """A file of the user's, or a name for one."""
        dice = self.dice
        content = dice.choice(
            [
                b"The king was a good king.\n" * 30, b"", b"\xff\xfe\x00", b"{", b'{"prompt": "a", "n": 1}\nx\n',
                b'{"prompt": "a", "max_new_tokens": 1}\n{"text": "b"}\n', b"[" * 5000, b"0.5 0.2 x", b"a\nb\n", None,
                b'{"index": 0, "prompt": "a"}\n', b"\x1b[2J\n" * 3, b"start: \"a\"\n", b"<html>",
            ]
        )  # fmt: skip
        path = self.place / f"{dice.randrange(10**6)}{dice.choice(['', '.jsonl', '.txt', '.html', '.png', '.json'])}"
        if content is not None:
            path.write_bytes(content)
        return str(path)


@contextlib.contextmanager
def surroundings(case: Case) -> Iterator[tuple[Stream, Stream]]:
    """Standard streams and environment of a case."""
    out, err = Stream(case.out_fails), Stream(case.err_fails)
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(case.stdin), encoding="utf-8"),
        "stdout": io.TextIOWrapper(io.BufferedWriter(out), encoding=case.encoding),
        "stderr": io.TextIOWrapper(io.BufferedWriter(err), encoding="utf-8", errors="backslashreplace"),
    }
    with contextlib.ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(mock.patch.object(sys, name, stream))
        stack.enter_context(mock.patch.dict(os.environ, case.environment))
        stack.enter_context(mock.patch.object(GPT2, "from_pretrained", loaded))
        yield out, err
        with contextlib.suppress(OSError):
            streams["stderr"].flush()
    out.failure = err.failure = 0  # so that nothing is left over when they are closed
    for stream in streams.values():
        stream.close()


LOADED = GPT2.from_pretrained


@lru_cache(maxsize=8)
def loaded(name: object = None, *, dtype: str = "float32", backend: str | None = None) -> GPT2:
    """`GPT2.from_pretrained`, once for each model."""
    return LOADED(name, dtype=dtype, backend=backend)  # type: ignore[arg-type]


def one(number: int, place: Path) -> tuple[str, list[str]]:
    """(what came of it, the faults found) of the command that a number draws."""
    case = Case(number, place)
    code: object = 0
    err = Stream()
    found: list[str] = []
    os.chdir(place)
    try:
        with warnings.catch_warnings(), limits(CPU_SECONDS, SECONDS):
            warnings.simplefilter("error")
            with surroundings(case) as (_, err):
                try:
                    main(case.arguments)
                except SystemExit as left:
                    code = left.code
    except Hang:
        found = ["it hangs"]
    except BaseException as error:
        found = [traceback.format_exc()[-1800:] if not isinstance(error, KeyboardInterrupt) else "interrupted"]
    said = err.content.decode()
    if not found:
        found = list(faults(case, code, said))
    shown = f"case {number}, {case.arguments!r:.400}, {case.environment}, {case.encoding}, {case.out_fails}, {code}"
    return outcome(code, said), [f"{shown}: {fault}" for fault in found]


def faults(case: Case, code: object, said: str) -> Iterator[str]:
    """What is wrong with how a command left."""
    if code not in (0, 1, 2, 141):
        yield f"exit status {code}"
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if "Traceback" in said or any(line.startswith("warning: ") for line in lines):
        yield f"a traceback or a warning: {said[-800:]}"
    if code == 141 and case.out_fails != errno.EPIPE:
        yield "a broken pipe that wasn't one"
    if code == 2 and not case.err_fails and (len(errors) != 1 or len(lines) != 1):
        yield f"not one line: {said[:600]!r}"
    if errors and case.out_fails and "standard output" in errors[0]:
        if code != 1:
            yield f"exit status {code} where standard output takes nothing"
        return
    for line in errors:
        if not line.isprintable() or len(line) > 1200:
            yield f"not fit for a terminal: {line!r:.300}"
        words = set(re.findall(r"\w+", line))
        options = [argument.lstrip("-").replace("-", "_") for argument in case.arguments]
        typed = {word for argument in options for word in re.findall(r"\w+", argument)}
        typed |= {word for argument in case.arguments for word in re.findall(r"\w+", argument)}
        begun = any(len(word) > 4 and word in line for word in typed)  # --force-words is force_words_ids there
        named = words & (typed | CAUSES | set(case.environment)) or re.search(r"--[a-z]|'[A-Z]+'", line)
        if not (begun or named or any(one and one in line for one in case.arguments)):
            yield f"names no cause: {line[:300]}"
        if re.search(r"object at 0x|\[Errno|ufunc|dtype\('|NoneType|Traceback", line):
            yield f"in Python's words: {line[:300]}"


def outcome(code: object, said: str) -> str:
    """A kind of outcome."""
    return f"{code} " + re.sub(r"got .*|[\d'\"]+", "#", said.splitlines()[-1] if said else "")[:70]


def run(first: int, count: int) -> tuple[list[str], Counter[str]]:
    """(all faults, outcomes by kind) of `count` commands from number `first` on."""
    found: list[str] = []
    kinds: Counter[str] = Counter()
    here = Path.cwd()
    try:
        with tempfile.TemporaryDirectory() as place:
            for number in range(first, first + count):
                kind, more = one(number, Path(place))
                found += more
                kinds[kind] += 1
    finally:
        os.chdir(here)
    return found, kinds


if __name__ == "__main__":
    found, by_kind = run(int(sys.argv[1]), int(sys.argv[2]))
    for kind, times in by_kind.most_common(60):
        print(f"{times:>6}  {kind}")
    print(json.dumps({"commands": sum(by_kind.values()), "outcomes": len(by_kind), "faults": len(found)}))
    print("\n".join(found[:25]))

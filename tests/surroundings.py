"""A command of the command line in this process, with streams that may fail, and what is wrong with how it left.

``main`` is called as the program calls it, with streams of our own in place of standard ones: a full disk, a closed
stream or a reader that is gone is an error of `Stream.write`. What needs a real shell is in `test_streams`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from unittest import mock

from limits import Hang, limits

from gpt2_np.cli import main
from gpt2_np.system.threads import one_blas_thread
from gpt2_np.text.gpt2 import GPT2

CPU_SECONDS, SECONDS = 60.0, 300.0  # that one command may take
# What an error may speak of besides what was typed.
CAUSES = set(
    "prompt text texts file line standard output input argument option command choice choices tokens ids JSON model "
    "beams sampling folder picture lens layer head receiver schema grammar answer corpus patterns matplotlib "
    "activation bundle tasks divergence context dictionary capture".split()
)
PYTHONS_WORDS = re.compile(
    r"object at 0x|\[Errno|ufunc|dtype\('|NoneType|Traceback|KeyError|not subscriptable|unhashable|not iterable"
    r"|'(?:int|str|float|list|dict|bool)' object|unsupported operand|invalid literal|codec can't|concatenate"
    r"|unexpected keyword|broadcast|index out of range|out of bounds|Errno|must be str, not"
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


@dataclass(frozen=True)
class Around:
    """A command's surroundings: what its streams do, and the environment."""

    encoding: str = "utf-8"
    out_fails: int = 0
    err_fails: int = 0
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=lambda: {"GPT2_NP_BACKEND": "numpy"})


def ended(self: object, sockets: object = None) -> None:
    """In place of a server's `run`: it has ended as soon as it would listen."""


@contextlib.contextmanager
def surroundings(around: Around) -> Iterator[tuple[Stream, Stream]]:
    """Standard streams and environment of a command; no server runs, and a model is loaded once."""
    out, err = Stream(around.out_fails), Stream(around.err_fails)
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(around.stdin), encoding="utf-8"),
        "stdout": io.TextIOWrapper(io.BufferedWriter(out), encoding=around.encoding),
        "stderr": io.TextIOWrapper(io.BufferedWriter(err), encoding="utf-8", errors="backslashreplace"),
    }
    with contextlib.ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(mock.patch.object(sys, name, stream))
        stack.enter_context(mock.patch.dict(os.environ, around.environment))
        stack.enter_context(mock.patch.object(GPT2, "from_pretrained", loaded))
        stack.enter_context(mock.patch("uvicorn.Server.run", ended))
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


def run_command(arguments: Sequence[str], around: Around) -> tuple[object, str, list[str]]:
    """(exit status, what stands on stderr, the faults found) of a command."""
    code: object = 0
    err = Stream()
    found: list[str] = []
    try:
        # On a busy machine two threads of BLAS wait for each other by spinning, which counts as computing.
        with warnings.catch_warnings(), one_blas_thread(), limits(CPU_SECONDS, SECONDS):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "whoever reaches this machine")  # which `serve` is meant to say
            with surroundings(around) as (_, err):
                try:
                    main(list(arguments))
                except SystemExit as left:
                    code = left.code
    except Hang:
        found = ["it hangs"]
    except BaseException as error:
        found = [traceback.format_exc()[-1800:] if not isinstance(error, KeyboardInterrupt) else "interrupted"]
    said = err.content.decode()
    if not found:
        found = list(faults(arguments, around, code, said))
    shown = f"{list(arguments)!r:.400}, {dict(around.environment)}, {around.encoding}, {around.out_fails}, {code}"
    return code, said, [f"{shown}: {fault}" for fault in found]


def faults(arguments: Sequence[str], around: Around, code: object, said: str) -> Iterator[str]:
    """What is wrong with how a command left."""
    if code not in (0, 1, 2, 141):
        yield f"exit status {code}"
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if "Traceback" in said or "Exception ignored" in said or any(line.startswith("warning: ") for line in lines):
        yield f"a traceback or a warning: {said[-800:]}"
    if code == 141 and around.out_fails != errno.EPIPE:
        yield "a broken pipe that wasn't one"
    if code == 2 and not around.err_fails and (len(errors) != 1 or len(lines) != 1):
        yield f"not one line: {said[:600]!r}"
    if errors and around.out_fails and "standard output" in errors[0]:
        if code != 1:
            yield f"exit status {code} where standard output takes nothing"
        return
    for line in errors:
        if not line.isprintable() or len(line) > 1200:
            yield f"not fit for a terminal: {line!r:.300}"
        words = set(re.findall(r"\w+", line))
        options = [argument.lstrip("-").replace("-", "_") for argument in arguments]
        typed = {word for argument in options for word in re.findall(r"\w+", argument)}
        typed |= {word for argument in arguments for word in re.findall(r"\w+", argument)}
        begun = any(len(word) > 4 and word[:60] in line for word in typed)  # --force-words is force_words_ids there
        named = words & (typed | CAUSES | set(around.environment)) or re.search(r"--[a-z]|'[A-Z.]+'", line)
        here = "" in arguments and "error: .: " in line  # an empty name of a file is the folder itself
        if not (begun or named or here or any(one and one in line for one in arguments)):
            yield f"names no cause: {line[:300]}"
        if PYTHONS_WORDS.search(line):
            yield f"in Python's words: {line[:300]}"


def outcome(code: object, said: str) -> str:
    """A kind of outcome."""
    return f"{code} " + re.sub(r"got .*|/[^ :]*|[\d'\"]+", "#", said.splitlines()[-1] if said else "")[:90]


Tell = Callable[[str], object]
Found = tuple[list[str], Counter[str]]


def cases(one: Callable[[int], tuple[str, list[str]]], first: int, count: int, tell: Tell) -> Found:
    """(all faults, outcomes by kind) of `count` cases from number `first` on, in whatever folder each goes to.

    ``one(number)`` gives a case's outcome and faults; `tell` hears of each fault at once.
    """
    found: list[str] = []
    kinds: Counter[str] = Counter()
    here = Path.cwd()
    try:
        for number in range(first, first + count):
            kind, more = one(number)
            found += more
            for fault in more:
                tell(fault)
            kinds[kind] += 1
    finally:
        os.chdir(here)
    return found, kinds


def report(run: Callable[[int, int, Tell], Found], first: int, count: int) -> None:
    """Run cases, print each fault at once and the outcomes by kind at the end."""
    found, by_kind = run(first, count, partial(print, flush=True))
    for kind, times in by_kind.most_common(80):
        print(f"{times:>6}  {kind}")
    print(json.dumps({"tried": sum(by_kind.values()), "outcomes": len(by_kind), "faults": len(found)}))

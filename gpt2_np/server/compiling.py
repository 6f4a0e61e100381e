"""Constraints are compiled in a separate process first: one that takes too much time or memory is ended there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from ..display import Readable
from ..system.errors import in_words

MEMORY = 2 << 30  # bytes of addresses that the process may have beyond what it starts with
STARTS = 60  # seconds that the process may take to load the tokenizer
KNOWN = 256  # constraints that are cached as valid, and as many that took too long
QUICK = 0.5  # seconds that every constraint has at first; one that needs more waits for others that do
AGAIN = 60.0  # seconds for which one that took too long is refused without another trial


class TooSlow(ValueError):
    """Raised for a constraint that takes too much time or memory."""


class Compiling(Readable):
    """Compiles constraints on trial for the tokenizer of a model's folder, one at a time, each within `seconds`.

    The process is started on first use, and again after it was ended. It may be called from several threads.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.process: subprocess.Popen[str] | None = None
        self.known: OrderedDict[str, float | None] = OrderedDict()  # None: valid; otherwise when it took too long
        self.lock = Lock()

    def check(self, kind: str, value: Any) -> None:
        """Raise ``ValueError``, in one line, for an invalid constraint; `TooSlow` for one that takes too much."""
        if find_spec("llguidance") is None:
            return  # the compiler in this process reports it
        line = json.dumps([kind, value])
        with self.lock:
            slow = self.known.get(line)
            if slow is not None and time.monotonic() < slow + AGAIN:
                raise self._too_slow(kind)
            if slow is None and line in self.known:
                self.known.move_to_end(line)
                return
            try:
                error = self._ask(line)
            except TimeoutError:
                self._remember(line, time.monotonic())
                raise self._too_slow(kind) from None
            if error is None:
                self._remember(line, None)
        if error:
            raise ValueError(error)

    def _remember(self, line: str, slow: float | None) -> None:
        self.known[line] = slow
        self.known.move_to_end(line)
        if len(self.known) > KNOWN:
            self.known.popitem(last=False)

    def _too_slow(self, kind: str) -> TooSlow:
        limits = f"{self.seconds:g} seconds and {MEMORY >> 20} MiB"
        return TooSlow(f"{kind} must compile within {limits}; make it simpler")

    def close(self) -> None:
        """End the process."""
        with self.lock:
            self._end()

    def _ask(self, line: str) -> str | None:
        """What is wrong with a constraint, if anything is; ``TimeoutError`` where the process had to be ended."""
        process = self.process if self.process is not None and self.process.poll() is None else self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        answer: list[str] = []
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = answer_of(process, self.seconds)
        except OSError:  # it has ended
            pass
        if not answer or not answer[0]:
            self._end()
            raise TimeoutError
        told: str | None = json.loads(answer[0])
        return told

    def _start(self) -> subprocess.Popen[str]:
        """The process, once it has loaded the tokenizer."""
        self._end()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        command = [sys.executable, "-m", __spec__.name, str(self.folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        answer_of(self.process, STARTS)
        return self.process

    def _end(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self.process = None


def answer_of(process: subprocess.Popen[str], seconds: float) -> list[str]:
    """Return the next line that a process writes; None if it takes longer."""
    answer, stream = list[str](), process.stdout
    assert stream is not None
    reader = Thread(target=lambda: answer.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    return list(answer)


def work(folder: Path) -> None:
    """Read constraints, a line of JSON each, and answer each with a line: null, or what is wrong with it."""
    from ..model.config import Config
    from ..text.constraints import Automaton, Vocabulary
    from ..text.tokenizer import Tokenizer

    config = Config.from_file(folder / "config.json")
    vocabulary = Vocabulary(Tokenizer.from_folder(folder, config), config.vocab_size)
    Automaton(vocabulary, "choice", ["a"])  # load what is loaded at first use
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    print("ready", flush=True)
    for line in sys.stdin:
        kind, value = json.loads(line)
        try:
            Automaton(vocabulary, kind, value)
        except (ValueError, RecursionError, MemoryError) as error:
            print(json.dumps(in_words(error)), flush=True)
        else:
            print("null", flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]))

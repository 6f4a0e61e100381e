"""How long one case of a fuzzer may take: a hang is a fault like any other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(BaseException):
    """A case took too long."""


@contextmanager
def limits(cpu: float, wall: float) -> Iterator[None]:
    """No more than so many seconds of computing, or in all: `Hang` otherwise."""

    def stop(*_: object) -> None:
        raise Hang

    old = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_REAL, wall)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), old, strict=True):
            signal.signal(number, handler)

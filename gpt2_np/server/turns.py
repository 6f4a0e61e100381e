"""A fair lock around one model that several threads use: each pass of the model is one turn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import Lock
from typing import Any, cast

import numpy as np

from ..display import Readable
from ..model.arrays import Array
from ..session.implementation import AnyCache, Implementation
from ..session.model import AnyModel


class Turns(Readable):
    """A fair lock: a waiting thread gets it before the thread that has just released it."""

    def __init__(self) -> None:
        self._next, self._now = Lock(), Lock()

    def __enter__(self) -> None:
        with self._next:
            self._now.acquire()

    def __exit__(self, *_: object) -> None:
        self._now.release()


class InTurns(Readable):
    """An implementation whose passes each take the lock; `check` is called first, and may raise to end the work."""

    def __init__(self, inner: Implementation, turns: Turns, check: Callable[[], None]) -> None:
        self.inner, self.turns, self.check = inner, turns, check

    @property
    def observable(self) -> bool:
        """See `Implementation`."""
        return self.inner.observable

    @property
    def backend(self) -> str:
        """See `Implementation`."""
        return self.inner.backend

    @property
    def dtype(self) -> np.dtype:
        """See `Computes`."""
        return self.inner.dtype

    def new_cache(self, rows: int, capacity: int) -> AnyCache:
        """See `Computes`."""
        return self.inner.new_cache(rows, capacity)

    def prepare(self, cache: AnyCache, shape: tuple[int, int], before: Any) -> Any:
        """See `Computes`."""
        return self.inner.prepare(cache, shape, before)

    def forward(self, ids: Array, **settings: Any) -> Array:
        """See `Computes`; in turn."""
        self.check()
        with self.turns:
            return self.inner.forward(ids, **settings)

    def unembed(self, x: Array) -> Array:
        """See `Computes`; in turn."""
        with self.turns:
            return self.inner.unembed(x)


def in_turns(model: AnyModel, turns: Turns, check: Callable[[], None] = lambda: None) -> AnyModel:
    """Return the same model, whose passes take turns with those of others made with the same `turns`."""
    shared = copy.copy(model)
    shared.implementation = cast(Implementation, InTurns(model.implementation, turns, check))
    return shared

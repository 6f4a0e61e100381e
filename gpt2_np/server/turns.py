"""A fair lock around one model that several threads use: each pass of the model is one turn."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, cast

import numpy as np

from ..display import Readable
from ..model.arrays import Array
from ..model.taps import no_tap
from ..session.implementation import AnyCache, Implementation
from ..session.model import AnyModel
from ..session.slots import BLOCK


class Turns(Readable):
    """A lock that goes to whoever has waited longest."""

    def __init__(self) -> None:
        self._guard, self._taken = Lock(), False
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()  # it stays taken: it is the other's now
            else:
                self._taken = False


class Together(Readable):
    """Several who count as one: they take turns among themselves, and whose turn that is waits for `turns`."""

    def __init__(self, turns: Turns) -> None:
        self._ours, self._turns = Turns(), turns

    def __enter__(self) -> None:
        self._ours.__enter__()
        self._turns.__enter__()

    def __exit__(self, *_: object) -> None:
        self._turns.__exit__()
        self._ours.__exit__()


AnyTurns = AbstractContextManager[None]


class InTurns(Readable):
    """An implementation each of whose passes takes its turn.

    Where it reads `in_blocks`, a pass over many positions becomes several, so that no turn takes long; only where that
    changes no bit. `check` is called before each pass, and may raise to end the work.
    """

    def __init__(self, inner: Implementation, turns: AnyTurns, check: Callable[[], None], in_blocks: bool) -> None:
        self.inner, self.turns, self.check, self.in_blocks = inner, turns, check, in_blocks

    @property
    def observable(self) -> bool:
        """See `Implementation`."""
        return self.inner.observable

    @property
    def batch_invariant(self) -> bool:
        """See `Implementation`."""
        return self.inner.batch_invariant

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
        rows, positions = ids.shape
        size = max(1, BLOCK // rows)
        whole = not self.in_blocks or positions <= size or settings.get("cache") is None
        if whole or settings.get("tap", no_tap) is not no_tap or not self.batch_invariant:
            return self._turn(ids, **settings)
        kinds, found = settings.pop("token_type_ids", None), []
        for start in range(0, positions, size):
            some = slice(start, start + size)
            of_kinds = None if kinds is None else kinds[:, some]
            found.append(self._turn(ids[:, some], token_type_ids=of_kinds, **settings))
        return found[-1] if settings.get("last_only") else np.concatenate(found, axis=1)

    def _turn(self, ids: Array, **settings: Any) -> Array:
        self.check()
        with self.turns:
            return self.inner.forward(ids, **settings)

    def unembed(self, x: Array) -> Array:
        """See `Computes`; in turn."""
        with self.turns:
            return self.inner.unembed(x)


def in_turns(
    model: AnyModel, turns: AnyTurns, check: Callable[[], None] = lambda: None, *, in_blocks: bool = False
) -> AnyModel:
    """The same model, whose passes take turns with those of others that were made with the same `turns`."""
    shared = copy.copy(model)
    shared.implementation = cast(Implementation, InTurns(model.implementation, turns, check, in_blocks))
    return shared

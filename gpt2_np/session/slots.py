"""Rows that join and leave between steps: what continuous batching decodes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..model.arrays import Array
from ..model.config import Config
from .implementation import AnyCache, Computes

if TYPE_CHECKING:
    from ..engine.decode_step import Prepared

BLOCK = 64  # positions that a prompt is read by, counted from its first; so long others wait for their next step


class Reads(Computes, Protocol):
    """What `Slots` need of a model: what it computes by."""

    config: Config


class Slots:
    """Rows of one cache, of which the first `count` are decoded together, and one more that prompts are read in.

    A prompt is read in the row apart, block by block, between the steps of the others; `join` then makes it a row of
    the batch, more than once where several texts are to follow it. Where a row leaves, the last one takes its place.
    The memory of all rows is reserved at once, and the operating system hands it out, in small pages, as it is written.
    """

    def __init__(self, model: Reads, rows: int, capacity: int) -> None:
        self.model, self.rows, self.count = model, rows, 0
        self.cache: AnyCache = model.new_cache(rows + 1, capacity)
        self.cache.scatter()
        self.reading: AnyCache = self.cache.row(rows)
        self._decoding: dict[int, AnyCache] = {}
        self._prepared: dict[int, Prepared | None] = {}

    def begin(self) -> None:
        """Forget what the row apart has read."""
        self.reading.rewind(self.reading.lengths.copy())
        self._prepared[0] = None

    def read(self, ids: Sequence[int], *, last_only: bool) -> Array:
        """Continue the row apart: the logits after each of the ids, (T, V), or after the last of them, (1, V)."""
        return self._forward(0, self.reading, np.array([ids], np.int64), last_only)[0]

    def join(self) -> int:
        """What was read becomes the last row of the batch, and stays in the row apart too; the row's number."""
        row, self.count = self.count, self.count + 1
        self.cache.copy(self.rows, row)
        return row

    def leave(self, row: int) -> int:
        """Take a row out; the last one moves into its place. Returns the number that the one that moved had."""
        self.count -= 1
        if row < self.count:
            self.cache.copy(self.count, row)
        self.cache.lengths[self.count] = 0
        return self.count

    def wipe(self, row: int | None = None) -> None:
        """Zeros in place of what a row (None: the row apart) holds: what isn't finite would reach whoever comes next,
        since what attention leaves out it multiplies by zero."""
        row = self.rows if row is None else row
        used = int(self.cache.lengths[row])
        self.cache.k[:, row, :, :used], self.cache.v[:, row, :, :used] = 0, 0

    def step(self, ids: Sequence[int]) -> Array:
        """Continue each row of the batch by one id: (count, V) logits. They may be other than finite."""
        cache = self._decoding.get(self.count)
        if cache is None:
            cache = self._decoding[self.count] = self.cache.some(slice(self.count))
        return self._forward(self.count, cache, np.array(ids, np.int64)[:, None], True)[:, -1]

    def _forward(self, rows: int, cache: AnyCache, ids: Array, last_only: bool) -> Array:
        ready = self._prepared[rows] = self.model.prepare(cache, ids.shape, self._prepared.get(rows))
        return self.model.forward(ids, cache=cache, last_only=last_only, prepared=ready)

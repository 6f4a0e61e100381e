"""`Slots`: rows that join and leave a batch between steps, for continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..display import Readable
from ..model.arrays import Array
from ..model.config import Config
from .implementation import AnyCache, Computes

if TYPE_CHECKING:
    from ..engine.decode_step import Prepared

BLOCK = 64  # positions of a prompt that are read at a time; the other rows' next step waits as long


class Reads(Computes, Protocol):
    """The interface of a model for `Slots`: its implementation."""

    config: Config


class Slots(Readable):
    """Rows of one cache: the first `count` are decoded together, and one spare row reads prompts.

    A prompt is read into the spare row, block by block, between the other rows' steps; `join` then makes it a row of
    the batch, several times if several texts continue it. When a row leaves, the last one takes its place. The memory
    of all rows is reserved at once, and the operating system hands it out in small pages as it is written.
    """

    def __init__(self, model: Reads, rows: int, capacity: int) -> None:
        self.model, self.rows, self.count = model, rows, 0
        self.cache: AnyCache = model.new_cache(rows + 1, capacity)
        self.cache.scatter()
        self.reading: AnyCache = self.cache.row(rows)
        self._decoding: dict[int, AnyCache] = {}
        self._prepared: dict[int, Prepared | None] = {}

    def begin(self) -> None:
        """Discard what the spare row has read."""
        self.reading.rewind(self.reading.lengths.copy())
        self._prepared[0] = None

    def read(self, ids: Sequence[int], *, last_only: bool) -> Array:
        """Continue the spare row: the logits after each of the ids, (T, V), or after the last of them, (1, V)."""
        return self._forward(0, self.reading, np.array([ids], np.int64), last_only)[0]

    def join(self) -> int:
        """Copy the spare row to a new last row of the batch, and return that row's number."""
        row, self.count = self.count, self.count + 1
        self.cache.copy(self.rows, row)
        return row

    def leave(self, row: int) -> int:
        """Remove a row; the last one moves into its place. Return the number that the moved row had."""
        self.count -= 1
        if row < self.count:
            self.cache.copy(self.count, row)
        self.cache.lengths[self.count] = 0
        return self.count

    def wipe(self, row: int | None = None) -> None:
        """Fill a row (None: the spare row) with zeros: a value that isn't finite would reach the row's next text,
        because attention multiplies masked values by zero.
        """
        row = self.rows if row is None else row
        used = int(self.cache.lengths[row])
        self.cache.k[:, row, :, :used], self.cache.v[:, row, :, :used] = 0, 0

    def step(self, ids: Sequence[int]) -> Array:
        """Continue each row of the batch by one id: (count, V) logits, which may not be finite."""
        cache = self._decoding.get(self.count)
        if cache is None:
            cache = self._decoding[self.count] = self.cache.some(slice(self.count))
        return self._forward(self.count, cache, np.array(ids, np.int64)[:, None], True)[:, -1]

    def _forward(self, rows: int, cache: AnyCache, ids: Array, last_only: bool) -> Array:
        ready = self._prepared[rows] = self.model.prepare(cache, ids.shape, self._prepared.get(rows))
        return self.model.forward(ids, cache=cache, last_only=last_only, prepared=ready)

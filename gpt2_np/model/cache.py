"""The key/value cache: the keys and values of the positions that were already fed.

Each row has its own length, so rows of different lengths share a batch without padding, and a row can be copied,
dropped or shortened without affecting the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import display
from ..system.memory import scattered, zeros
from .config import Config

Array = np.ndarray


class KVCache:
    """Keys and values of every layer: ``k`` and ``v`` are (L, B, H, N, K), ``lengths`` is (B,) int64.

    Row b holds ``lengths[b]`` positions out of a capacity of N. The memory is reserved at once; the operating system
    hands out pages only as they are written. ``shared`` is (B, B): how many first positions two rows are known to have
    in common, so that a row that becomes a copy of another one copies only what differs.
    """

    def __init__(self, config: Config, rows: int, capacity: int, dtype: np.dtype | type = np.float32) -> None:
        if not 1 <= capacity <= config.n_positions:
            raise ValueError(f"a cache must hold between 1 and {config.n_positions} positions, got {capacity}")
        shape = (config.n_layer, rows, config.n_head, capacity, config.head_width)
        # Zeros, not uninitialised memory: a shorter row's unwritten positions are masked, but 0 · NaN would be NaN.
        self.k = zeros(shape, dtype)
        self.v = zeros(shape, dtype)
        self.lengths = np.zeros(rows, np.int64)
        self.shared = np.zeros((rows, rows), np.int64)

    def __repr__(self) -> str:
        size = display.in_bytes(self.k.nbytes + self.v.nbytes)
        return (
            f"KVCache({len(self.k)} layers, lengths {display.brief(self.lengths.tolist())} of {self.capacity}, {size})"
        )

    @property
    def rows(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """N: the positions that a row can hold."""
        return int(self.k.shape[3])

    def check_room(self, T: int) -> None:
        """Raise ``ValueError`` if T more positions don't fit into the longest row."""
        longest = max(self.lengths.tolist(), default=0)
        if longest + T > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, got {longest} + {T}")

    def extend(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Append T new positions of one layer, (B, T, H, K) each, to every row.

        Returns the layer's whole (B, H, N, K) arrays. The lengths change only when `advance` is called, once all
        layers have written.
        """
        T = k.shape[1]
        for row, start in enumerate(self.lengths):
            self.k[layer, row, :, start : start + T] = k[row].swapaxes(0, 1)
            self.v[layer, row, :, start : start + T] = v[row].swapaxes(0, 1)
        return self.k[layer], self.v[layer]

    def advance(self, T: int) -> None:
        """Count the T positions that every layer has now written."""
        self.lengths += T

    def row(self, row: int) -> KVCache:
        """Return a cache of this one row, which shares its memory: what is fed to it is stored here."""
        return self.some(slice(row, row + 1))

    def some(self, rows: slice) -> KVCache:
        """Return a cache of several consecutive rows, which shares their memory."""
        view = object.__new__(KVCache)
        view.k, view.v, view.lengths = self.k[:, rows], self.v[:, rows], self.lengths[rows]
        view.shared = np.zeros((len(view.lengths),) * 2, np.int64)
        return view

    def scatter(self) -> None:
        """Move to memory in small pages, of which short rows take little; the cache's content is lost."""
        self.k, self.v = (scattered(array.shape, array.dtype) for array in (self.k, self.v))
        self.lengths[:], self.shared[:] = 0, 0

    def copy(self, source: int, target: int) -> None:
        """Make row `target` a copy of row `source`."""
        used = int(self.lengths[source])
        for array in (self.k, self.v):
            array[:, target, :, :used] = array[:, source, :, :used]
        self.lengths[target] = used
        self.shared[target], self.shared[:, target] = 0, 0

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """New row i continues old row ``rows[i]``: rows are permuted, copied or dropped."""
        rows = np.asarray(rows, np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < self.rows):
            raise ValueError(f"rows must be between 0 and {self.rows - 1}, got {rows.tolist()}")
        if len(rows) > self.rows:
            used = int(self.lengths.max(initial=0))
            for name in ("k", "v"):
                old = getattr(self, name)
                new = zeros((old.shape[0], len(rows), *old.shape[2:]), old.dtype)
                new[:, :, :, :used] = old[:, rows, :, :used]
                setattr(self, name, new)
        else:
            moved = [
                (row, old, slice(self.shared[row, old], self.lengths[old]))
                for row, old in enumerate(rows.tolist())
                if row != old
            ]
            for array in (self.k, self.v):
                kept = [array[:, old, :, part].copy() for _, old, part in moved]
                for (row, _, part), what in zip(moved, kept, strict=True):
                    array[:, row, :, part] = what
            if len(rows) < self.rows:
                self.k, self.v = self.k[:, : len(rows)], self.v[:, : len(rows)]
        self.lengths = self.lengths[rows]
        self.shared = np.where(rows[:, None] == rows, self.lengths, self.shared[rows[:, None], rows])

    def rewind(self, counts: Sequence[int] | Array | int) -> None:
        """Forget each row's last ``counts[row]`` positions."""
        counts = np.broadcast_to(np.asarray(counts, np.int64), self.lengths.shape)
        if (counts < 0).any() or (counts > self.lengths).any():
            raise ValueError(f"rewind must take between 0 and {self.lengths.tolist()} positions, got {counts.tolist()}")
        self.lengths -= counts
        self.shared = np.minimum(self.shared, np.minimum(self.lengths[:, None], self.lengths))


def position_bytes(config: Config) -> int:
    """Return the bytes that one position's keys and values take in float32, over all layers."""
    return 8 * config.n_layer * config.n_embd

"""`Session`: rows of text that grow, which is all that decoding sees of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..display import Readable
from ..model import overflow
from ..model.arrays import Array
from ..model.config import Config
from ..model.ids import check_vocabulary
from ..model.taps import Recording, Tap, both, no_tap
from .implementation import AnyCache, Computes

if TYPE_CHECKING:
    from ..engine.decode_step import Prepared

INT64 = np.dtype(np.int64)


class Runs(Computes, Protocol):
    """The interface of a model for a session: its implementation, and a check of the logits."""

    config: Config

    def check_logits(self, logits: Array, ids: Array, *, cache: AnyCache = None, tap: Tap = no_tap) -> None:
        """Raise ``ValueError`` if logits are not finite."""
        ...


class Session(Readable):
    """Rows of text in progress. It implements each of the ``…Stepper`` protocols of `decoders`.

    The first `feed` brings the prompts, one per row, of any lengths; every later one continues the rows.
    """

    def __init__(self, model: Runs, capacity: int, tap: Tap = no_tap) -> None:
        self.model, self.capacity, self.tap = model, capacity, tap
        self.cache: AnyCache = None  # made when the first ids say how many rows there are
        self.prepared: Prepared | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave out `prepared` in copies and in other processes: it holds addresses of this session's arrays."""
        return self.__dict__ | {"prepared": None}

    def feed(self, ids: Sequence[Sequence[int]] | Array) -> Array:
        """Continue each row by its new ids, and return the logits after each row's last id: (rows, V)."""
        logits = self._advance(ids, last_only=True)
        return logits[0][:, -1] if len(logits) == 1 else np.concatenate([part[:, -1] for part in logits])

    def feed_all(self, ids: Sequence[Sequence[int]] | Array) -> list[Array]:
        """Continue each row by its new ids, and return the logits after every one: for each row (its new ids, V)."""
        return [row for logits in self._advance(ids, last_only=False) for row in logits]

    def feed_hidden(self, ids: Sequence[Sequence[int]] | Array) -> tuple[Array, list[Array]]:
        """Return `feed`'s logits, and the final norm's output after every new id: for each row (its new ids, D)."""
        logits, (hidden,) = self._observe(ids, ["ln_final.out"], last_only=False)
        return logits, hidden

    def feed_layers(self, ids: Sequence[Sequence[int]] | Array, layers: Sequence[int]) -> tuple[Array, Array]:
        """Return `feed`'s logits, and those of the residual stream as it enters each of `layers`: (layers, rows, V).

        The stream is unembedded as it is, without the final norm.
        """
        logits, streams = self._observe(ids, [f"blocks.{layer}.resid_pre" for layer in layers], last_only=True)
        with np.errstate(over="ignore", invalid="ignore"):
            early = self.model.unembed(np.stack([[row[-1] for row in stream] for stream in streams]))
        for layer, scores in zip(layers, early, strict=True):
            if not overflow.sound(scores):
                raise ValueError(overflow.message(f"blocks.{layer}.resid_pre", self.model.dtype))
        return logits, early

    @property
    def n_layer(self) -> int:
        """The number of layers that `feed_layers` can read."""
        return self.model.config.n_layer

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix, in which case early layers mostly repeat the last id."""
        return self.model.config.tie_word_embeddings

    def _observe(
        self, ids: Sequence[Sequence[int]] | Array, names: Sequence[str], last_only: bool
    ) -> tuple[Array, list[list[Array]]]:
        """Return (rows, V) logits after each row's last id, and for each name each row's (its new ids, D)
        activations.
        """
        seen = Recording(names, self.model.config)
        logits = self._advance(ids, last_only, seen)
        return (
            np.concatenate([part[:, -1] for part in logits]),
            [[row for part in seen.passes[name] for row in part] for name in names],
        )

    def _advance(self, ids: Sequence[Sequence[int]] | Array, last_only: bool, watch: Tap = no_tap) -> list[Array]:
        tap, found = both(self.tap, watch), []
        for part, cache in self._parts(ids):
            if tap is no_tap:
                self.prepared = self.model.prepare(cache, part.shape, self.prepared)
            logits = self.model.forward(part, cache=cache, tap=tap, last_only=last_only, prepared=self.prepared)
            self.model.check_logits(logits, part, cache=cache, tap=self.tap)
            found.append(logits)
        return found

    def _parts(self, ids: Sequence[Sequence[int]] | Array) -> list[tuple[Array, AnyCache]]:
        """Return the ids as int64 arrays, and the cache rows that they go to: all at once, or each alone if lengths
        differ.

        ``ValueError``, before any of them is run, for ids that are not in the vocabulary or find no room.
        """
        if self.cache is None:
            self.cache = self.model.new_cache(len(ids), self.capacity)
        if isinstance(ids, np.ndarray) and ids.dtype is INT64:
            parts = [(ids, self.cache)]
        else:
            try:
                rows = [np.asarray(row, np.int64) for row in ids]
            except OverflowError:  # which is outside any vocabulary
                check_vocabulary(np.array([one for row in ids for one in row], object), self.model.config)
                raise
            if len({row.shape for row in rows}) == 1:
                parts = [(np.array(rows), self.cache)]
            else:
                parts = [(row[None], self.cache.row(number)) for number, row in enumerate(rows)]
        wrong = len(ids) != self.cache.rows
        for part, _ in parts:
            wrong = wrong or part.ndim != 2 or not part.size
        if wrong:
            counts = [np.size(row) for row in ids]
            raise ValueError(f"each of the {self.cache.rows} rows must get at least one new id, got {counts}")
        for part, _ in parts:
            check_vocabulary(part, self.model.config)
        for part, cache in parts:
            cache.check_room(part.shape[1])
        return parts

    def reorder(self, rows: Sequence[int] | Array) -> None:
        """New row i continues old row ``rows[i]``."""
        assert self.cache is not None, "nothing was fed yet"
        self.cache.reorder(rows)

    def rewind(self, counts: Sequence[int] | Array | int) -> None:
        """Forget each row's last ``counts[row]`` ids."""
        assert self.cache is not None, "nothing was fed yet"
        self.cache.rewind(counts)

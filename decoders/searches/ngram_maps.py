"""Drafts without a model that look the text itself through: llama.cpp's ngram-simple, ngram-map-k and ngram-map-k4v.

The source is ``common/ngram-map.cpp`` (pull request 18471). There a text's first id is never drafted, nor here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.interface import Array
from ..base.readable import Readable

Drafted = tuple[list[int], list[Array]]
NOTHING: Drafted = ([], [])


class Source(Readable):
    """The common interface of the five: a text grows, and its newest id is kept apart from those that are searched."""

    passes = 0

    def __init__(self, prompt: Sequence[int]) -> None:
        self.prompt_length = len(prompt)

    def propose(self, text: Sequence[int], most: int) -> Drafted:
        """Return at most `most` ids that may follow."""
        if len(text) == self.prompt_length or most < 1:
            return NOTHING
        return self.draft(list(text[:-1]), text[-1])[:most], []

    def draft(self, ids: list[int], newest: int) -> list[int]:
        """Return what may follow some ids and the newest one."""
        raise NotImplementedError

    def learn(self, proposed: int, accepted: int) -> None:
        """Receive how many of the newest candidates were accepted."""


class Simple(Source):
    """ngram-simple: what followed the newest n ids where they last stood before, m of them at most.

    ``common_ngram_simple_draft``. It wants more than n + m + 1 ids before the newest, and drafts n at least.
    """

    def __init__(self, prompt: Sequence[int], n: int, m: int) -> None:
        super().__init__(prompt)
        self.n, self.m = n, m

    def draft(self, ids: list[int], newest: int) -> list[int]:
        n, m, length = self.n, self.m, len(ids)
        if length <= n + m + 1:
            return []
        key = [*ids[length - n + 1 :], newest]
        place = last_place(ids, key, length - n - 1, 0)
        found = ids[place + n : place + n + m]
        return [] if place == 0 or len(found) < n else found


def last_place(ids: Sequence[int], key: Sequence[int], first: int, last: int) -> int:
    """The last place from `first` down to the one after `last` at which a key stands; 0 where there is none."""
    n = len(key)
    return next((place for place in range(first, last, -1) if ids[place : place + n] == key), 0)


FOLLOWERS = 4  # of each key are told apart
MOST_COUNTED = 16380
SLOTS, FACTOR = 2**18, 2654435761  # of the table of hashes, and what a hash is multiplied by for each id


@dataclass
class Follower:
    """m ids that followed a key: where they stand (0: nowhere), how often they did, how many were right at last."""

    place: int
    count: int
    accepted: int


@dataclass
class Key:
    """n ids that came again: where they stand, up to where their followers are counted, how often they were asked."""

    place: int
    followers: list[Follower]
    counted_to: int = 0
    hits: int = 0


class Map(Source):
    """ngram-map-k and ngram-map-k4v: keys of n ids with what followed them, m at a time.

    ``common_ngram_map_draft`` and ``…_accept``. A key is looked up by its hash, where the first n-gram with a hash
    keeps it; what isn't in the table yet is searched from the end. Once a draft was partly wrong, the key's next one is
    as long as what was right. Without `values` (map-k) whatever followed the key is drafted. With them (map-k4v) up to
    four followers of a key are counted, and the most frequent is drafted where the key was asked for `min_hits` times
    and that follower came at least twice as often as the others together.
    """

    def __init__(self, prompt: Sequence[int], n: int, m: int, min_hits: int, values: bool) -> None:
        super().__init__(prompt)
        self.n, self.m, self.min_hits, self.values = n, m, min_hits, values
        self.table: dict[int, int] = {}  # from a hash to the place of an n-gram
        self.tabled = 0  # up to where n-grams are in it
        self.keys: list[Key] = []
        self.used: Follower | None = None  # what the newest draft was made from

    def draft(self, ids: list[int], newest: int) -> list[int]:
        n, m, length = self.n, self.m, len(ids)
        self.used = None
        if length < 2 * n + m:
            return []
        wanted = [*ids[length - n + 1 :], newest]
        place = self.find(ids, wanted)
        if place == 0:
            return []
        key = next((one for one in self.keys if ids[one.place : one.place + n] == wanted), None)
        if key is None:
            key = Key(place, [Follower(0, 0, m) for _ in range(FOLLOWERS)])
            self.keys.append(key)
        key.hits = min(key.hits + 1, MOST_COUNTED)
        used = key.followers[0]
        if self.values:
            if key.hits < self.min_hits:
                return []
            self.count(ids, wanted, key, place)
            used = max(key.followers, key=lambda one: one.count)
            others = sum(one.count for one in key.followers) - used.count
            if others > 0 and used.count < 2 * others:
                return []
        self.used = used
        return ids[place + n : place + n + min(m, used.accepted)]

    def find(self, ids: list[int], wanted: list[int]) -> int:
        """Return the position of a key, or 0 if there is none; new n-grams are put into the table."""
        n, m, length, begin = self.n, self.m, len(ids), self.prompt_length
        newest = length - n - m - 1
        place = self.table.get(int(hashes(np.array([wanted]))[0]), 0)
        if place >= newest or ids[place : place + n] != wanted:
            place = 0
        # First what stood in the prompt, then what was written since.
        parts = [(begin - n - m - 1, self.tabled)] if begin > n + m + 1 else []
        parts.append((newest, max(begin, self.tabled)))
        for first, last in parts:
            place = place or last_place(ids, wanted, first, last)
        for first, last in parts:
            if first > last:
                windows = np.lib.stride_tricks.sliding_window_view(np.array(ids[: first + n]), n)
                for slot, at in zip(hashes(windows[first:last:-1]).tolist(), range(first, last, -1), strict=True):
                    self.table.setdefault(slot, at)
        self.tabled = max(newest, self.tabled)
        return place

    def count(self, ids: list[int], wanted: list[int], key: Key, to: int) -> None:
        """Count what followed a key, up to a place, among its four followers."""
        n, m = self.n, self.m
        for place in range(key.counted_to, to + 1):
            if ids[place : place + n] != wanted:
                continue
            after = ids[place + n : place + n + m]
            for one in key.followers:
                if one.place == 0:
                    one.place, one.count, one.accepted = place + n, 0, m
                elif ids[one.place : one.place + m] != after:
                    continue
                one.count = min(one.count + 1, MOST_COUNTED)
                break
        key.counted_to = to

    def learn(self, proposed: int, accepted: int) -> None:
        if self.used is not None and proposed:
            self.used.accepted = accepted


def hashes(ngrams: Array) -> Array:
    """The slot of each of (k, n) n-grams: ``common_ngram_map_hash``, 32 bits, modulo the table's size."""
    found = np.zeros(len(ngrams), np.uint64)
    for column in ngrams.T.astype(np.uint64):
        found = (found * np.uint64(FACTOR) + column) & np.uint64(0xFFFFFFFF)
    return found % np.uint64(SLOTS)

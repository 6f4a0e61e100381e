"""Drafts without a model from tables of what followed: llama.cpp's ngram-mod and ngram-cache.

The sources are ``common/ngram-mod.cpp``, ``common/ngram-cache.cpp`` and ``common/speculative.cpp`` (pull requests 5479
and 19164).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .ngram_maps import Source


@dataclass
class Pool:
    """A table of what followed each n-gram, by a hash of 64 bits modulo 2^22; the last occurrence counts:
    ``common_ngram_mod``.

    The texts of one call share it, as the slots of llama.cpp's server do.
    """

    n: int
    following: dict[int, int] = field(default_factory=dict)

    def slot(self, ngram: Sequence[int]) -> int:
        """Return where an n-gram is kept."""
        found = 0
        for token in ngram:
            found = (found * 6364136223846793005 + token) & 0xFFFFFFFFFFFFFFFF
        return found % 2**22

    def add(self, ids: Sequence[int], first: int, last: int) -> None:
        """Note what follows the n-grams that begin at these places."""
        for place in range(first, last):
            self.following[self.slot(ids[place : place + self.n])] = ids[place + self.n]


class Mod(Source):
    """ngram-mod: one id after the other, each what last followed the n before it, drafted ones included.

    ``common_speculative_impl_ngram_mod``. New n-grams are noted every 32 ids; a draft of fewer than `least` is none;
    after five drafts in a row of which less than a quarter was right all is forgotten.
    """

    def __init__(self, prompt: Sequence[int], pool: Pool, least: int, most: int) -> None:
        super().__init__(prompt)
        self.pool, self.least, self.most = pool, least, most
        self.noted = self.drafted = self.poor = 0
        if len(prompt) >= pool.n:
            self.note(prompt)

    def note(self, ids: Sequence[int]) -> None:
        """Note the n-grams that aren't yet."""
        self.pool.add(ids, self.noted, len(ids) - self.pool.n)
        self.noted = len(ids) - self.pool.n

    def draft(self, ids: list[int], newest: int) -> list[int]:
        n, self.drafted = self.pool.n, 0
        if len(ids) < n:
            return []
        if self.noted + 32 < len(ids):
            self.note(ids)
        found = [*ids[len(ids) - n + 1 :], newest]
        while len(found) < n + self.most:
            token = self.pool.following.get(self.pool.slot(found[-n:]))
            if token is None:
                break
            found.append(token)
        drafted = found[n:]
        if len(drafted) < min(self.least, self.most):
            return []
        self.drafted = len(drafted)
        return drafted

    def learn(self, proposed: int, accepted: int) -> None:
        if not self.drafted or not proposed:
            return
        self.poor = self.poor + 1 if accepted / self.drafted < 0.25 else 0
        if self.poor == 5:
            self.pool.following.clear()
            self.poor = self.noted = 0


SEEN, SHARE = (2, 2, 1, 1), (66, 50, 50, 50)  # how often an n-gram must have come, and which share of it one id has


class Cache(Source):
    """ngram-cache: how often each id followed each n-gram of one to four; the longest that is sure enough decides.

    ``common_ngram_cache_update`` and ``…_draft`` with the cache of the text alone, as ``examples/lookup`` feeds them:
    an n-gram counts wherever it stands. Of ids that followed equally often, the one that came last as new counts.
    """

    def __init__(self, prompt: Sequence[int], most: int) -> None:
        super().__init__(prompt)
        self.most, self.noted = most, 0
        self.counts: dict[tuple[int, ...], dict[int, int]] = {}

    def draft(self, ids: list[int], newest: int) -> list[int]:
        text = [*ids, newest]
        for n in range(1, len(SEEN) + 1):
            for place in range(max(self.noted, n), len(text)):
                followers = self.counts.setdefault(tuple(text[place - n : place]), {})
                followers[text[place]] = followers.get(text[place], 0) + 1
        self.noted = len(text)
        drafted: list[int] = []
        while len(text) > 1 and len(drafted) < self.most:
            token = self.surest(text)
            if token is None:
                break
            text.append(token)
            drafted.append(token)
        return drafted

    def surest(self, text: Sequence[int]) -> int | None:
        """Return what follows the longest of a text's last n-grams that is known well enough."""
        for n in range(min(len(SEEN), len(text)), 0, -1):
            followers = self.counts.get(tuple(text[-n:]))
            if followers:
                token = max(reversed(followers), key=followers.__getitem__)
                total = sum(followers.values())
                if total >= SEEN[n - 1] and 100 * followers[token] >= SHARE[n - 1] * total:
                    return token
        return None

"""Gradients of many linear readings of one run: what each token owes to those before it, at every position at once.

A reading is a direction at one position of the final norm's output, such as the difference of two rows of the
unembedding: a logit difference. A run with a metric for each position would repeat its forward pass, and the logits of
the whole vocabulary, for every one of them; the values of one run serve all. No reading depends on positions behind its
own, so the gradients are rows of one matrix without padding, one for each pair of a reading and a position up to its
place: half as many as a rectangle has, and an affine map is one product of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..display import Readable
from ..engine.threaded import CACHED, in_pieces
from ..model.activations import ActivationCache
from ..model.arrays import Weight
from ..model.config import Config
from ..model.taps import no_tap
from ..system.memory import empty
from . import threaded
from .backward import Learned, block, layer_norm
from .heads import each_head
from .kept import NEEDED, Values

Array = np.ndarray


def names_read(config: Config) -> list[str]:
    """Return the names of the activations that `of_embeddings` needs of a run."""
    final = ["ln_final.normalized", "ln_final.scale"]
    return final + [f"blocks.{layer}.{name}" for layer in range(config.n_layer) for name in NEEDED]


def of_embeddings(cache: ActivationCache, places: Sequence[int], directions: Array) -> Array:
    """The gradient of each of n readings at the stream that enters the first block: (n, D) directions → (n, T', D).

    Reading number i is ``directions[i]`` · the final norm's output at position ``places[i]``. ``cache`` holds
    `names_read` of a run of one row without edits. T' is one more than the last of the places; behind a reading's own
    place its gradient is 0.
    """
    params, config, pairs = cache.params, cache.config, Pairs(places)
    values, learned, d = Values(OfPairs(cache, pairs), None), Learned(False), OfOneRun(pairs)
    g = np.zeros((1, len(pairs.positions), config.n_embd), directions.dtype)
    g[0, pairs.at_places] = directions[pairs.order]
    g = layer_norm(g, params.ln_f, values.with_prefix("ln_final."), d, no_tap, learned)
    for layer in reversed(range(config.n_layer)):
        of_layer = values.with_prefix(f"blocks.{layer}.")
        g = block(g, params.h[layer], config, layer, of_layer, d, no_tap, learned)
    found = np.zeros((len(places), pairs.T, config.n_embd), g.dtype)
    found[pairs.order[pairs.readings], pairs.positions] = g[0]
    return found


class Pairs(Readable):
    """The pairs of a reading and a position up to its place, by position: those of one position are adjacent rows.

    Readings are numbered from the last place to the first (`order` says which was which), so those that depend on a
    position are always the first ones. ``positions`` and ``readings`` are those of each row, ``at_places`` the row of
    each reading's own place.
    """

    def __init__(self, places: Sequence[int]) -> None:
        of = np.asarray(places)
        self.order = np.argsort(-of, kind="stable")
        self.places = of[self.order]
        self.T = int(self.places[0]) + 1
        counts = np.count_nonzero(self.places >= np.arange(self.T)[:, None], axis=1)
        starts = np.cumsum(counts) - counts
        self.positions = np.repeat(np.arange(self.T), counts)
        self.readings = np.arange(len(self.positions)) - starts[self.positions]
        self.at_places = starts[self.places] + np.arange(len(of))

    def parts(self, most: int) -> list[tuple[Array, Array, Array, tuple[int, int]]]:
        """Divide the readings so that no part's pairs of two positions are more than about `most`: the rows of each
        part, their positions and readings, and how many of these two there are in it.
        """
        found, first = [], 0
        while first < len(self.places):
            T = int(self.places[first]) + 1
            end = min(len(self.places), first + max(1, most // (T * T)))
            rows = np.flatnonzero((self.readings >= first) & (self.readings < end))
            found.append((rows, self.positions[rows], self.readings[rows] - first, (T, end - first)))
            first = end
        return found


class OfOneRun(Readable):
    """The derivatives of `threaded` for the rows of `Pairs`. What all readings share is worked out once."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __getattr__(self, name: str) -> Any:
        return getattr(threaded, name)

    def linear(self, gradient: Array, weight: Weight) -> Array:
        """As `derivatives.linear`. In the last block only the readings' own places have a gradient before attention has
        spread it: the other rows are skipped.
        """
        some = None if gradient[0, 0].any() else threaded.with_gradient(gradient[0])
        if some is None:
            return threaded.linear(gradient, weight)
        found = threaded.linear(gradient[0, some], weight)
        out = np.zeros((1, gradient.shape[1], found.shape[1]), found.dtype)
        out[0, some] = found
        return out

    def activate(self, gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
        """As `derivatives.activate`, in the gradient's own memory; ``x`` are the values by position."""
        slopes, positions = threaded.activate(np.ones_like(x), x, name, parameters)[0], self.pairs.positions

        def some(rows: slice) -> None:
            gradient[0, rows] *= slopes[positions[rows]]

        in_pieces(some, len(positions), gradient.size)
        return gradient

    def attention(
        self, gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
    ) -> tuple[Array, Array, Array]:
        """As `derivatives.attention`, head by head: a head's queries, keys and values serve all readings, so that each
        step is one product for all. The gradient is (1, rows, H, K), the values are by position.
        """
        of_q, of_k, of_v = (empty(gradient.shape, gradient.dtype) for _ in range(3))
        H, K = gradient.shape[2:]
        parts = self.pairs.parts(CACHED)

        def head(_: int, h: int) -> None:
            for rows, at, reading, (T, n) in parts:
                queries, keys, vectors = (np.ascontiguousarray(one[0, :T, h]) for one in (q, k, v))
                weights = pattern[0, h, :T, :T]
                g = np.zeros((T, n, K), gradient.dtype)
                g[at, reading] = gradient[0, rows, h]
                scores = (g.reshape(T * n, K) @ vectors.T).reshape(T, n, T)
                scores *= weights[:, None]
                scores -= scores.sum(axis=-1, keepdims=True) * weights[:, None]
                scores *= scale
                of_q[0, rows, h] = (scores.reshape(T * n, T) @ keys).reshape(T, n, K)[at, reading]
                of_k[0, rows, h] = (scores.reshape(T, n * T).T @ queries).reshape(n, T, K)[reading, at]
                of_v[0, rows, h] = (weights.T @ g.reshape(T, n * K)).reshape(T, n, K)[at, reading]

        each_head(head, 1, H, gradient.size)
        return of_q, of_k, of_v


class OfPairs(Readable, Mapping[str, Array]):
    """A run's values for the rows of `Pairs`: those of norms row by row, all others once for each position."""

    def __init__(self, values: Mapping[str, Array], pairs: Pairs) -> None:
        self.values_of, self.pairs = values, pairs

    def __getitem__(self, name: str) -> Array:
        x = self.values_of[name]
        if name.endswith(("normalized", "scale")):
            return x[:, self.pairs.positions]
        return x if name.endswith("attn.pattern") else x[:, : self.pairs.T]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)

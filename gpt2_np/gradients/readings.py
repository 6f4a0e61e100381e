"""Gradients of many linear readings of one run: what each token owes to those before it, at every position at once.

A reading is a direction at one position of the final norm's output, such as the difference of two rows of the
unembedding: a logit difference. A run with a metric for each position would repeat its forward pass, and the logits of
the whole vocabulary, for every one of them; the values of one run serve all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..display import Readable
from ..engine.threaded import in_pieces
from ..model.activations import ActivationCache
from ..model.config import Config
from ..model.taps import no_tap
from . import threaded
from .backward import Learned, block, layer_norm
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
    params, config = cache.params, cache.config
    n, T = len(places), max(places) + 1
    values, learned, d = Values(Repeated(cache, n, T), None), Learned(False), OfOneRun()
    g = np.zeros((n, T, config.n_embd), directions.dtype)
    g[np.arange(n), list(places)] = directions
    g = layer_norm(g, params.ln_f, values.with_prefix("ln_final."), d, no_tap, learned)
    for layer in reversed(range(config.n_layer)):
        of_layer = values.with_prefix(f"blocks.{layer}.")
        g = block(g, params.h[layer], config, layer, of_layer, d, no_tap, learned)
    return g


class OfOneRun(Readable):
    """The derivatives of `threaded`; the activation's slopes, the same in all rows, are worked out once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(threaded, name)

    def activate(self, gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
        """As `derivatives.activate`, in the gradient's own memory."""
        slopes = threaded.activate(np.ones_like(x[:1]), x[:1], name, parameters)
        in_pieces(lambda some: np.multiply(gradient[some], slopes, out=gradient[some]), len(gradient), gradient.size)
        return gradient


class Repeated(Readable, Mapping[str, Array]):
    """The first T positions of a run's values as those of n equal rows, without a copy."""

    def __init__(self, values: Mapping[str, Array], n: int, T: int) -> None:
        self.values_of, self.n, self.T = values, n, T

    def __getitem__(self, name: str) -> Array:
        x = self.values_of[name]
        x = x[:, :, : self.T, : self.T] if name.endswith("attn.pattern") else x[:, : self.T]
        return np.broadcast_to(x, (self.n, *x.shape[1:]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)

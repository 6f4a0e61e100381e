"""Runs of some layers only: that end after the last activation that is asked for, or begin at a later block."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from ..model import overflow
from ..model.config import Config
from ..model.forward import block, layer_norm
from ..model.operations import Operations
from ..model.params import Params
from ..model.taps import Capture, Tap, with_prefix
from ..session.model import Model

Array = np.ndarray


class Enough(Exception):
    """Raised when everything that was asked for has been captured."""


class Until(Capture):
    """A tap that captures the named activations and ends the run once it has them all."""

    def __call__(self, name: str, x: Array) -> Array:
        x = super().__call__(name, x)
        if len(self.values) == len(self.names):
            raise Enough
        return x


def activations(model: Model, ids: Array, names: Sequence[str]) -> Mapping[str, Array]:
    """Return some activations of a run that ends after the last of them, by name: as (B, T, …), for (B, T) ids.

    ``ValueError`` where they overflow; it names the layer.
    """
    until, watch = Until(names), overflow.Watch()
    with np.errstate(over="ignore", invalid="ignore"):
        with contextlib.suppress(Enough):
            model.forward(model.check_ids(ids), tap=until)
        if not all(np.isfinite(x).all() for x in until.values.values()):
            model.forward(ids, tap=watch)
            raise ValueError(overflow.message(watch.first, model.dtype))
    return until.values


def last_stream(params: Params, config: Config, ops: Operations, x: Array, layer: int, tap: Tap) -> Array:
    """Run the blocks from `layer` on, of the stream that enters it: (B, T, D) → the last stream, (B, T, D)."""
    for number in range(layer, config.n_layer):
        x = block(x, params.h[number], config, number, ops, None, with_prefix(tap, f"blocks.{number}."))
    return x


def logits_of(params: Params, config: Config, ops: Operations, x: Array, tap: Tap) -> Array:
    """Take the last stream to the logits: (B, T, D) → (B, T, V)."""
    x = layer_norm(x, params.ln_f, config, ops, with_prefix(tap, "ln_final."))
    return tap("unembed", ops.unembed(x, params.lm_head))

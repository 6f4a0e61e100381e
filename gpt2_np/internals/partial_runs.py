"""Runs that end after the last activation that is asked for: later layers aren't computed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from ..model.taps import Capture
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

    ``ValueError`` where they overflow.
    """
    until = Until(names)
    with contextlib.suppress(Enough), np.errstate(over="ignore", invalid="ignore"):
        model.forward(model.check_ids(ids), tap=until)
    for name, x in until.values.items():
        if not np.isfinite(x).all():
            raise ValueError(f"activations overflow: {name} is not finite")
    return until.values

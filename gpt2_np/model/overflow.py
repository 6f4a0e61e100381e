"""Detection of activations that overflow float32 although all weights are finite: in the logits, then traced to a
layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ..display import Readable
from .taps import Tap, no_tap

if TYPE_CHECKING:
    import numpy.typing as npt

Array = np.ndarray
WATCHED = re.compile(r"(pos_)?embed|unembed|ln_final\.out|blocks\.\d+\.(attn_out|mlp_out|resid_\w+)")


def sound(logits: Array, tap: Tap = no_tap) -> bool:
    """Tell whether logits are valid numbers; −infinity is allowed where a tap may have put it there to rule out
    tokens.
    """
    if np.isfinite(logits).all():
        return True
    if not tap.wants("unembed"):
        return False
    return not (np.isnan(logits) | (logits == np.inf)).any()


class Watch(Readable):
    """A tap that records the first activation that is not finite, among the ones that every component adds to."""

    def __init__(self) -> None:
        self.first: str | None = None

    def wants(self, name: str) -> bool:
        """Return True for the embeddings, each block's streams, the final norm and the logits."""
        return WATCHED.fullmatch(name) is not None

    def __call__(self, name: str, x: Array) -> Array:
        if self.first is None and self.wants(name) and not np.isfinite(x).all():
            self.first = name
        return x


def message(place: str | None, dtype: npt.DTypeLike) -> str:
    """Return the one-line error; `place` is the activation's name."""
    block = re.match(r"blocks\.(\d+)\.", place or "")
    others = {None: "", "unembed": " in the logits", "ln_final.out": " in the final norm"}
    where = f" in layer {block[1]}" if block else others.get(place, " in the embeddings")
    return f"the model's activations overflow {np.dtype(dtype)}{where}"

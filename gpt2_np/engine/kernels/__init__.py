"""The compiled twins of `ops`: same names, same signatures, Numba loops and SIMD instructions where they pay.

Each kernel is compiled on first use, once per machine: the compiled code is kept in the user's cache (`code_cache`).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# How long Numba's OpenMP threads spin at a barrier before they sleep, unless the user sets it. The default of some
# milliseconds is lost at every barrier when another program holds a core and one of the threads isn't running.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from ...model.ops import attention_scores, centred, layer_norm_scale, mix_values, scaled_and_shifted, split_heads
from ...system.garbage import without_garbage_collection

if TYPE_CHECKING:
    from .causal_attention import attention
    from .matrices import linear, unembed
    from .pointwise import activate, gelu_new, layer_norm, softmax

COMPILED = {
    "causal_attention": ("attention",),
    "matrices": ("linear", "unembed"),
    "pointwise": ("activate", "gelu_new", "layer_norm", "softmax"),
}

__all__ = [
    "activate",
    "attention",
    "attention_scores",
    "centred",
    "gelu_new",
    "layer_norm",
    "layer_norm_scale",
    "linear",
    "mix_values",
    "scaled_and_shifted",
    "softmax",
    "split_heads",
    "unembed",
]


def __getattr__(name: str) -> Any:
    """What is compiled, when it is first asked for."""
    for module, names in COMPILED.items():
        if name in names:
            with without_garbage_collection():
                found = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

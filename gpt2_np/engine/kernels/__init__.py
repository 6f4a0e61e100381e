"""The compiled twins of `ops`: same names, same signatures, Numba loops where they pay and NumPy's BLAS where it does.

Importing this compiles the kernels, once on a machine: the compiled code is kept in the user's cache (`code_cache`).
"""

import os

# How long the OpenMP threads under Numba spin before they sleep, where the user doesn't say. Its own default of some
# milliseconds is spent at every meeting of threads when another program holds a core and one of them isn't running.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from ...model.ops import attention_scores, centred, layer_norm_scale, mix_values, scaled_and_shifted, split_heads
from ...system.garbage import without_garbage_collection

with without_garbage_collection():
    from .causal import attention
    from .matrices import FEW, linear, unembed
    from .pointwise import GELU_NEW, activate, gelu_new, layer_norm, softmax

__all__ = [
    "FEW",
    "GELU_NEW",
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

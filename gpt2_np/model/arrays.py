"""The type of a weight matrix: an array, or a stand-in that has its own product (quantized, or with an adapter)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Array = np.ndarray


class StandIn(Protocol):
    """A matrix of (inputs, outputs) that is not stored as an array.

    Examples are `weights.quantize.Matrix`, in reduced precision, and `training.low_rank.Apart`, which has an adapter
    beside it.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        ...

    @property
    def size(self) -> int:
        """The number of weights."""
        ...

    @property
    def nbytes(self) -> int:
        """The number of bytes that each product reads."""
        ...

    def product(self, x: Array) -> Array:
        """Return x times this matrix: (…, inputs) → (…, outputs)."""
        ...

    def dequantize(self) -> Array:
        """Return the array that it represents: (inputs, outputs)."""
        ...


# The type of ``Linear.weight`` and of ``Params.lm_head``. A head that is an array is (V, D), as ``wte`` is; one that
# isn't has inputs and outputs like any other matrix, (D, V).
Weight = np.ndarray | StandIn

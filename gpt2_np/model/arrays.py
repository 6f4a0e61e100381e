"""What stands for a matrix of the model: an array, or a stand-in that has a product of its own."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Array = np.ndarray


class StandIn(Protocol):
    """A matrix of (inputs, outputs) that is not kept as an array.

    `weights.quantize.Matrix` is one in reduced precision, `training.low_rank.Apart` one with an adapter beside it.
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
        """Bytes that each product reads."""
        ...

    def product(self, x: Array) -> Array:
        """x times this matrix: (…, inputs) → (…, outputs)."""
        ...

    def dequantize(self) -> Array:
        """The array that it stands for: (inputs, outputs)."""
        ...


# The type of ``Linear.weight`` and of ``Params.lm_head``. A head that is an array is (V, D), as ``wte`` is; one that
# isn't has inputs and outputs like any other matrix, (D, V).
Weight = np.ndarray | StandIn

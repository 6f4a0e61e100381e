"""The normalisation of activations before a dictionary reads them, and its inverse on what the dictionary writes.

none                       nothing
expected_average_only_in   nothing any more: one factor, which is folded into the weights when they are loaded
constant_norm_rescale      each vector to the length √d  (Anthropic's update of February 2024)
layer_norm                 each vector to mean 0 and standard deviation 1, d − 1 in the denominator  (Gao et al. 2024)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...display import described

Array = np.ndarray
EPSILON = 1e-5  # beside the standard deviation, on the way in alone


class Scale(NamedTuple):
    """The scale and shift removed from vectors: ``x = y · scale + shift``, each (…, 1), or None if nothing was."""

    scale: Array | None = None
    shift: Array | None = None

    def __repr__(self) -> str:
        return described(self)

    def back(self, y: Array) -> Array:
        """Return the dictionary's output in the model's units."""
        if self.scale is not None:
            y = y * self.scale
        return y if self.shift is None else y + self.shift

    def gradient(self, gradient: Array) -> Array:
        """The gradient of what the dictionary wrote, from that of what `back` made of it."""
        return gradient if self.scale is None else gradient * self.scale


def normalise(kind: str, x: Array) -> tuple[Array, Scale]:
    """Return the input (…, d) that the dictionary reads for x, and the `Scale` that was removed."""
    if kind == "constant_norm_rescale":
        scale = length(x) / x.shape[-1] ** 0.5
        return x / scale, Scale(scale)
    if kind == "layer_norm":
        shift = x.mean(axis=-1, keepdims=True)
        centred = x - shift
        scale = deviation(centred)
        return centred / (scale + EPSILON), Scale(scale, shift)
    return x, Scale()


def gradient(kind: str, x: Array, y: Array, of_y: Array, of_out: Array) -> Array:
    """∂L/∂x from ∂L/∂(what was read), and from ∂L/∂(what was written, in the model's units), ``y`` being what the
    dictionary wrote before `Scale.back`: both depend on what was taken out of x."""
    d = x.shape[-1]
    if kind == "constant_norm_rescale":
        norm = length(x)
        scale = norm / d**0.5
        of_scale = dot(of_out, y) - dot(of_y, x) / scale**2
        return of_y / scale + of_scale * x / (norm * d**0.5)
    if kind == "layer_norm":
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = deviation(centred)
        of_scale = dot(of_out, y) - dot(of_y, centred) / (scale + EPSILON) ** 2
        of_centred = of_y / (scale + EPSILON) + of_scale * centred / ((d - 1) * scale)
        of_shift = of_out.sum(axis=-1, keepdims=True)
        return of_centred - of_centred.mean(axis=-1, keepdims=True) + of_shift / d
    return of_y


def length(x: Array) -> Array:
    """(…, 1)."""
    return np.sqrt(dot(x, x))


def deviation(centred: Array) -> Array:
    """The standard deviation with d − 1 in the denominator, as ``torch.std`` has it: (…, 1)."""
    return np.sqrt(dot(centred, centred) / (centred.shape[-1] - 1))


def dot(a: Array, b: Array) -> Array:
    """(…, 1)."""
    return np.einsum("...d,...d->...", a, b)[..., None]

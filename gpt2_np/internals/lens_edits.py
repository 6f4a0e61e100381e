"""Interventions on what a Jacobian lens reads: a token's direction is added, removed, or swapped for another's.

Each gives the edits of the streams after some layers, for `Model.with_edits`. Gurnee et al. 2026, "Verbalizable
Representations Form a Global Workspace in Language Models", methods; as in TransformerLens 4.3's ``JacobianLens``. A
token's direction v at layer l is its row of W_U · J_l (`jacobian_lens.Lens.direction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..model.edits import AnyEdit, Edit, Part
from ..session.model import Model
from .jacobian_lens import Lens

Array = np.ndarray
SMALLEST_ANGLE = 1e-3  # sine of the angle between two directions below which exchanging them means nothing


def steer(
    lens: Lens, model: Model, token: int, layers: Sequence[int], *, strength: float = 1.0, positions: Any = None
) -> dict[str, AnyEdit]:
    """Add a token's direction: h + strength · m · v/‖v‖, where m is the median length of the row's streams at that
    layer.

    The median, since a text's first position is many times longer than the others. While generating it is that of what
    is fed in one pass. ``ValueError`` for a strength that isn't finite.
    """
    if not np.isfinite(strength):
        raise ValueError(f"strength must be finite, got {strength}")

    def change(layer: int) -> AnyEdit:
        unit = _units(lens, model, [token], layer)[0]

        def add(x: Array) -> Array:
            lengths = np.median(np.linalg.norm(x, axis=-1), axis=-1)[:, None, None]
            return (x + strength * lengths * unit).astype(x.dtype)

        return Part(add, positions)

    return {f"blocks.{layer}.resid_post": change(layer) for layer in _layers(model, layers)}


def ablate(
    lens: Lens, model: Model, tokens: Sequence[int], layers: Sequence[int], *, positions: Any = None
) -> dict[str, AnyEdit]:
    """Remove the projection of the stream onto the span of tokens' directions: h − Q Qᵀ h, Q an orthonormal basis of
    it.
    """

    def matrix(layer: int) -> Array:
        units = _units(lens, model, tokens, layer).astype(np.float64)
        return np.eye(units.shape[1]) - np.linalg.pinv(units) @ units

    return {f"blocks.{layer}.resid_post": _linear(matrix(layer), positions) for layer in _layers(model, layers)}


def swap(
    lens: Lens,
    model: Model,
    source: int,
    target: int,
    layers: Sequence[int],
    *,
    strength: float = 1.0,
    positions: Any = None,
) -> dict[str, AnyEdit]:
    """Exchange two tokens' coordinates: h + strength · V (σ(c) − c), V = [v_source, v_target], c = V⁺h, σ exchanging.

    What is orthogonal to both directions stays. The coordinates are those of the stream as each layer's edit meets it,
    so exchanging at several layers may exchange back. ``ValueError`` for two tokens of (nearly) one direction.
    """
    if not np.isfinite(strength):
        raise ValueError(f"strength must be finite, got {strength}")

    def matrix(layer: int) -> Array:
        pair = np.stack([lens.direction(model, token, layer) for token in (source, target)]).astype(np.float64)
        one, other = _units(lens, model, [source, target], layer).astype(np.float64)
        if np.linalg.norm(one - (one @ other) * other) < SMALLEST_ANGLE:
            raise ValueError(
                f"tokens to swap must have different directions, got {source} and {target} at layer {layer}"
            )
        coordinates = np.linalg.pinv(pair)  # (D, 2): h @ it are h's coordinates
        return np.eye(pair.shape[1]) + strength * (coordinates[:, ::-1] - coordinates) @ pair

    return {f"blocks.{layer}.resid_post": _linear(matrix(layer), positions) for layer in _layers(model, layers)}


def _linear(matrix: Array, positions: Any) -> Edit:
    """Return the edit h @ matrix, with its derivative."""

    def change(x: Array) -> Array:
        return (x @ matrix).astype(x.dtype)

    return Edit(Part(change, positions), lambda x, gradient: (gradient @ matrix.T).astype(gradient.dtype))


def _units(lens: Lens, model: Model, tokens: Sequence[int], layer: int) -> Array:
    found = np.stack([lens.direction(model, token, layer) for token in tokens])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"a token's direction must not be 0, got that of {tokens[int(lengths.argmin())]}")
    return found / lengths


def _layers(model: Model, layers: Sequence[int]) -> list[int]:
    L = model.config.n_layer
    for layer in layers:
        if not -L <= layer < L:
            raise ValueError(f"layer must be between {-L} and {L - 1}, got {layer}")
    return [layer % L for layer in layers]

"""Steering vectors: a direction in the residual stream that is added while the model writes.

Turner et al. 2023, "Activation Addition"; Rimsky et al. 2023, "Steering Llama 2 via Contrastive Activation Addition".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model.edits import AnyEdit, Part, Positions
from ..session.model import AnyModel, Model

Array = np.ndarray
Texts = Sequence[str] | Sequence[Sequence[int]]


def steering_vector(
    model: Model, towards: Texts, away: Texts, layer: int, *, position: int | None = -1, prepend_bos: bool = False
) -> Array:
    """Return the difference between texts of two kinds in the stream before `layer`, (D,): mean of one − mean of the
    other.

    It is read at `position` of each text (the last unless given), or averaged over a text's positions if None.
    """
    if not 0 <= layer < model.config.n_layer:
        raise ValueError(f"layer must be between 0 and {model.config.n_layer - 1}, got {layer}")
    if not len(towards) or not len(away):
        raise ValueError(f"a direction needs texts on both sides, got {len(towards)} and {len(away)}")

    def mean(texts: Texts) -> Array:
        ids = [model.to_ids(text, prepend_bos=prepend_bos) for text in texts]
        return np.asarray(sum(_read(model, text, layer, position) for text in ids)) / len(texts)

    return (mean(towards) - mean(away)).astype(model.dtype)


def _read(model: Model, text: Sequence[int], layer: int, position: int | None) -> Array:
    stream = model.run_with_cache(text, f"blocks.{layer}.resid_pre")[1]["resid_pre", layer][0].astype(np.float64)
    if position is None:
        return stream.mean(axis=0)
    if not -len(stream) <= position < len(stream):
        raise ValueError(f"position must be between {-len(stream)} and {len(stream) - 1} of every text, got {position}")
    return stream[position]


def addition(vector: Array, layer: int, scale: float = 1.0, positions: Positions = None) -> dict[str, AnyEdit]:
    """Return the edit that adds ``scale · vector`` to the stream before `layer`, everywhere or at some positions."""
    with np.errstate(over="ignore", invalid="ignore"):
        shift = (np.asarray(vector) * scale).astype(np.asarray(vector).dtype)
    if not np.isfinite(shift).all():
        raise ValueError(f"scale times the vector must be finite in {shift.dtype}, got scale {scale}")

    def add(x: Array) -> Array:
        if shift.shape != x.shape[-1:]:
            raise ValueError(f"a steering vector must have the width {x.shape[-1]}, got shape {shift.shape}")
        return x + shift

    return {f"blocks.{layer}.resid_pre": Part(add, positions)}


def steer(model: AnyModel, vector: Array, layer: int, scale: float = 1.0, positions: Positions = None) -> AnyModel:
    """Return the same model, steered in everything that it does: ``steer(model, v, 3).generate("Once upon a time")``.

    `positions` limits it: ``range(1, 5)``, or ``slice(10, None)`` for what is written from position 10 on.
    """
    if np.shape(vector) != (model.config.n_embd,):
        raise ValueError(f"a steering vector must have the width {model.config.n_embd}, got shape {np.shape(vector)}")
    return model.with_edits(addition(vector, layer, scale, positions))

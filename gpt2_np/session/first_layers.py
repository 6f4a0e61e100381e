"""A model's first layers as a model of their own, which drafts for the whole one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model.choices import BACKENDS
from .model import Model


def first_layers(model: Model, layers: int) -> Model:
    """Return the model that the first layers are under the last norm and head, without edits; it is kept for next time.

    ``ValueError`` unless the model has as many.
    """
    if not 1 <= layers <= model.config.n_layer:
        raise ValueError(f"assistant_early_exit must be between 1 and {model.config.n_layer}, got {layers}")
    kept: dict[Any, Any] = model.__dict__.setdefault("_first_layers", {})
    if kept.get("of") is not model.params:
        kept = model.__dict__["_first_layers"] = {"of": model.params}
    if layers not in kept:
        params = model.params._replace(h=model.params.h[:layers])
        backend = model.backend if model.backend in BACKENDS else None
        kept[layers] = Model(params, replace(model.config, n_layer=layers), backend=backend)
    found: Model = kept[layers]
    return found

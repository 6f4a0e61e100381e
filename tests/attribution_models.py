"""Small random models for the tests of attribution, in float64, and pairs of prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tiny_models

from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble
from gpt2_np.session.model import Model

CLEAN, CORRUPTED = np.array([3, 7, 1, 12, 5, 9]), np.array([3, 2, 1, 12, 14, 9])


def tiny(number: int = 1, change: Callable[[str, np.ndarray], np.ndarray] = lambda name, x: x, **changes: Any) -> Model:
    """The tiny model of this number, its tensors changed by `change(name, tensor)`, its configuration by keywords."""
    model = tiny_models.MODELS[number]
    config = Config(**{name: value for name, value in model.items() if name != "seed"} | changes)
    tensors = {name: change(name, x.astype(np.float64)) for name, x in tiny_models.tensors(model).items()}
    return Model(assemble(tensors, config), config, backend="numpy")


def without_biases(name: str, x: np.ndarray) -> np.ndarray:
    """A tensor, 0 where it is a bias."""
    return np.zeros_like(x) if name.endswith(".bias") else x

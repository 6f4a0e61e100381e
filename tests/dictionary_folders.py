"""Dictionaries that SAELens wrote, unpacked from what `scripts/make_golden_dictionaries.py` packed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gpt2_np.internals.dictionaries import Config, Dictionary

GOLDEN = Path(__file__).parent / "golden"
CONFIGS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "dictionaries.json").read_text())


@cache
def golden() -> dict[str, np.ndarray]:
    """Every tensor of the bundle."""
    return load_file(GOLDEN / "dictionaries.safetensors")


def tensors(name: str, mark: str) -> dict[str, np.ndarray]:
    """The weights ("/") of a dictionary, or what SAELens makes of some activations with it (":")."""
    return {key.partition(mark)[2]: x.copy() for key, x in golden().items() if key.partition(mark)[0] == name}


def unpack(name: str, folder: Path) -> Path:
    """A folder as SAELens wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(CONFIGS[name]))
    save_file(tensors(name, "/"), folder / "sae_weights.safetensors")
    return folder


def random_dictionary(
    config: dict[str, Any], seed: int = 0, *, scale: float = 0.3, dtype: type[np.floating[Any]] = np.float32
) -> Dictionary:
    """A dictionary of this configuration with random weights."""
    random, filled = np.random.default_rng(seed), Config(**config)
    weights = {name: random.normal(0, scale, shape).astype(dtype) for name, shape in filled.shapes.items()}
    if "threshold" in weights:
        weights["threshold"] = np.abs(weights["threshold"])
    return Dictionary(filled, weights)

"""A dictionary as SAELens 6's files: ``SAE.load_from_disk`` reads what `save` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...system.files import JSONObject, write_whole
from ...weights.save import as_json, safetensors
from .config import Config
from .dictionary import Dictionary
from .load import CONFIG, WEIGHTS

VERSION = "6.0.0"  # of the format: what SAELens compares with its own to know which fields to expect


def save(dictionary: Dictionary, folder: Path | str, *, dtype: str = "float32") -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors``. Files that are there already are replaced, each as a whole.

    `dtype` is what the weights are stored in, "float32" or "float16", half as large; either is read as float32.
    ``ValueError`` for another one; ``OSError`` names a file that can't be written.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: np.asarray(x, dtype) for name, x in dictionary.tensors.items()}
    write_whole(folder / WEIGHTS, safetensors(stored))
    write_whole(folder / CONFIG, as_json(fields(dictionary.config)))


def fields(config: Config) -> JSONObject:
    """The content of ``cfg.json``."""
    found: JSONObject = {
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": config.normalize_activations,
        "reshape_activations": config.reshape_activations,
    }
    if config.k is not None:
        found |= {"k": config.k, "rescale_acts_by_decoder_norm": config.rescale_acts_by_decoder_norm}
    if config.is_transcoder:
        found["d_out"] = config.d_out
    place = {"hook_name": config.hook_name, "hook_head_index": config.hook_head_index}
    if config.is_transcoder:
        place["hook_name_out"] = config.hook_name_out
    found["metadata"] = dict(config.metadata) | {"sae_lens_version": VERSION} | place
    return found | {"architecture": config.architecture}

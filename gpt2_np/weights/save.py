"""Saving a model as ``config.json`` and ``model.safetensors``, as transformers saves it."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..model.config import ALIASES, Config
from ..model.params import Params, flatten, tensors
from ..system.files import JSONObject, read_json, write_whole

Array = np.ndarray

STORED = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def save_model(folder: Path, params: Params, config: Config, source: Path | None = None) -> None:
    """Write both files; `source` is the folder that the model came from, or None.

    Fields that don't change a forward pass (dropout rates, task settings) are copied from the source's ``config.json``.
    """
    dtype = stored_dtype(params)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "model.safetensors", safetensors(tensors_of(params)))
    write_whole(folder / "config.json", as_json(config_fields(params, config, dtype, source)))


def tensors_of(params: Params) -> dict[str, Array]:
    """Return every tensor by transformers' name: ``transformer.h.0.…``, and ``lm_head.weight`` if it is untied."""
    named = tensors(params).items()
    return {name if name == "lm_head.weight" else f"transformer.{name}": array for name, array in named}


def stored_dtype(params: Params) -> str:
    """Return the weights' dtype: "float32" or "float64". ``ValueError`` for a reduced precision."""
    for name, array in flatten(params):
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            raise ValueError(f"only float32 and float64 weights can be saved, and {name} is in a reduced precision")
    return str(params.ln_f.weight.dtype)


def config_fields(params: Params, config: Config, dtype: str, source: Path | None) -> JSONObject:
    """Return the fields of ``config.json``."""
    path = None if source is None else source / "config.json"
    fields = dict(read_json(path)) if path is not None and path.is_file() else {}
    for name in (*ALIASES, "torch_dtype"):
        fields.pop(name, None)
    fields |= {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "dtype": dtype}
    return fields | dataclasses.asdict(config) | {"tie_word_embeddings": params.lm_head is params.wte}


def as_json(content: object) -> bytes:
    """Return JSON as a file has it: indented, unsorted, ended by a newline."""
    return (json.dumps(content, indent=2) + "\n").encode()


def safetensors(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield a safetensors file piece by piece, so that tensors aren't copied: its header, then each tensor.

    The header is the length of its JSON (8 bytes, little-endian), the JSON with every tensor's dtype, shape and place,
    and spaces up to a multiple of 8, so that tensors are aligned.
    """
    header: JSONObject = {"__metadata__": {"format": "pt", **(metadata or {})}}
    start = 0
    for name, array in tensors.items():
        end = start + array.nbytes
        entry = {"dtype": STORED[str(array.dtype)], "shape": list(array.shape), "data_offsets": [start, end]}
        header[name], start = entry, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for array in tensors.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)

"""The committed bundle, a right port's answers to it, and how a bundle's tensors are spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt2_np import GPT2
from gpt2_np.parity import bundle

TINY = Path(__file__).parent / "golden/bundle"


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right port's answers."""
    folder = tmp_path_factory.mktemp("right")
    bundle.answer(folder, TINY, GPT2.from_pretrained(TINY / "model"))
    return folder


def tensor(folder: Path, name: str, value: float | None, stored: str = "f8") -> None:
    """A bundle's tensor filled with a value, of a dtype as NumPy or safetensors calls it; None takes it out."""
    path = folder / "activations.safetensors"
    tensors = {key: (one.dtype, one.shape, one.tobytes()) for key, one in load_file(path).items()}
    _, shape, _ = tensors.pop(name)
    if value is not None:
        kind = np.dtype(stored) if len(stored) == 2 else stored
        content = np.full(shape, value, kind if len(stored) == 2 else "u1").tobytes()
        tensors[name] = (kind, shape, content)
    header, body = {}, b""
    names = {"float64": "F64", "float32": "F32", "int64": "I64"}
    for key, (kind, shape, content) in tensors.items():
        offsets = [len(body), len(body) + len(content)]
        header[key] = {"dtype": names.get(str(kind), str(kind)), "shape": list(shape), "data_offsets": offsets}
        body += content
    about = json.dumps(header).encode()
    path.write_bytes(len(about).to_bytes(8, "little") + about + body)

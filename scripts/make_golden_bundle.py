"""Make tests/golden/bundle: a golden bundle of a tiny random GPT-2, every parameter of it random.

python scripts/make_golden_bundle.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gpt2_np import GPT2
from gpt2_np.model.config import Config
from gpt2_np.model.params import shapes
from gpt2_np.parity import bundle

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "bundle"
FIELDS: dict[str, Any] = {
    "vocab_size": 61,
    "n_positions": 32,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def main() -> None:
    random = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes(Config(**FIELDS)).items():
        values = random.standard_normal(shape) * (0.1 if name.endswith("bias") or ".ln_" in name else 0.3)
        # Not centred and not small: then a wrong epsilon or a missing norm can't hide.
        values = values + 1 if ".weight" in name and "ln_" in name else values
        tensors[name] = (values * (0.02 if name in ("wte.weight", "wpe.weight") else 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "model.safetensors")
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "gpt2", **FIELDS}, indent=1) + "\n")
        bundle.export(GOLDEN, folder, [[5, 17, 42, 8, 30, 11], [60]])
    bundle.write_texts(GOLDEN, GPT2.from_pretrained())  # the random model has no tokenizer: that of tales
    print(GOLDEN)


if __name__ == "__main__":
    main()

"""TransformerLens's own answers, from the golden file that scripts/make_golden_transformer_lens.py made."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from gpt2_np.internals.processing import process_weights
from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble
from gpt2_np.session.model import Model

CONFIG = Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)


@cache
def golden() -> dict[str, np.ndarray]:
    return load_file(Path(__file__).parent / "golden" / "transformer_lens.safetensors")


def under(prefix: str) -> dict[str, np.ndarray]:
    """The golden arrays below a prefix."""
    return {name[len(prefix) + 1 :]: array for name, array in golden().items() if name.startswith(prefix + ".")}


def as_loaded() -> Model:
    return Model(assemble(under("params"), CONFIG), CONFIG, backend="numpy")


def processed() -> Model:
    """The model with the weight processing that TransformerLens does by default."""
    model = as_loaded()
    return model.with_params(process_weights(model.params))

"""Tiny random GPT-2s that any version of transformers can be given, tensor for tensor, without a file of weights."""

from __future__ import annotations

from typing import Any

import numpy as np

# What varies between them; everything else is GPT-2's default.
MODELS: list[dict[str, Any]] = [
    {
        "seed": seed,
        "vocab_size": V,
        "n_positions": 48,
        "n_embd": 16,
        "n_layer": L,
        "n_head": 2,
        "tie_word_embeddings": tied,
    }
    for seed, (V, L, tied) in enumerate(
        [
            (19, 1, True),
            (19, 2, True),
            (23, 2, False),
            (31, 3, False),
            (29, 4, True),
            (37, 6, True),
            (27, 6, False),
            (40, 9, True),
        ]
    )
]


def tensors(model: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor by its official name, float32, from the frozen legacy stream of the model's seed."""
    random = np.random.RandomState(model["seed"])
    V, D, N = model["vocab_size"], model["n_embd"], model["n_positions"]

    def normal(centre: float, deviation: float, *shape: int) -> np.ndarray:
        return random.normal(centre, deviation, shape).astype(np.float32)

    table = {"wte.weight": normal(0, 0.4, V, D), "wpe.weight": normal(0, 0.3, N, D)}
    for layer in range(model["n_layer"]):
        for name, inner, outer in (
            ("attn.c_attn", D, 3 * D),
            ("attn.c_proj", D, D),
            ("mlp.c_fc", D, 4 * D),
            ("mlp.c_proj", 4 * D, D),
        ):
            table[f"h.{layer}.{name}.weight"] = normal(0, 0.2, inner, outer)
            table[f"h.{layer}.{name}.bias"] = normal(0, 0.1, outer)
        for name in ("ln_1", "ln_2"):
            table[f"h.{layer}.{name}.weight"], table[f"h.{layer}.{name}.bias"] = normal(1, 0.1, D), normal(0, 0.1, D)
    table["ln_f.weight"], table["ln_f.bias"] = normal(1, 0.1, D), normal(0, 0.1, D)
    if not model["tie_word_embeddings"]:
        table["lm_head.weight"] = normal(0, 0.4, V, D)
    return table

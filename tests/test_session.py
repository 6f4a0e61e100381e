"""What sessions show besides logits: hidden states and the logits of early layers, against transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import random_ids, reference_model

from gpt2_np.session import Model
from gpt2_np.text import on_torch

TEXTS = [random_ids(1, length, seed=length)[0].tolist() for length in (9, 9, 9)]
RAGGED = [random_ids(1, length, seed=length)[0].tolist() for length in (3, 9, 5)]
LAYERS = [0, 1, 2]


def load(folder: Path, backend: str) -> Model:
    return on_torch(folder) if backend == "torch" else Model.from_pretrained(folder, backend=backend)


def theirs(text: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """transformers' last logits, last hidden states, and what its head makes of the layers' inputs."""
    model = reference_model()
    with torch.inference_mode():
        out = model(torch.tensor([text]), output_hidden_states=True)
        early = [model.lm_head(out.hidden_states[layer][0, -1]).numpy() for layer in LAYERS]
    return out.logits[0, -1].numpy(), out.hidden_states[-1][0].numpy(), np.array(early)


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
@pytest.mark.parametrize("texts", [TEXTS, RAGGED], ids=["equal", "ragged"])
def test_hidden_states_and_early_layers_are_transformers_own(small: Path, backend: str, texts) -> None:
    expected = [theirs(text) for text in texts]
    # All but the last id first, so that the cache takes part; then the rows in another order.
    for watch in ("hidden", "layers"):
        session = load(small, backend).start()
        if watch == "hidden":
            logits, first = session.feed_hidden([text[:-1] for text in texts])
            session.reorder([2, 0, 1])
            logits, last = session.feed_hidden([texts[row][-1:] for row in (2, 0, 1)])
            for place, row in enumerate((2, 0, 1)):
                hidden = np.concatenate([first[row], last[place]])
                np.testing.assert_allclose(hidden, expected[row][1], atol=2e-4)
        else:
            session.feed_layers([text[:-1] for text in texts], LAYERS)
            session.reorder([2, 0, 1])
            logits, early = session.feed_layers([texts[row][-1:] for row in (2, 0, 1)], LAYERS)
            for place, row in enumerate((2, 0, 1)):
                np.testing.assert_allclose(early[:, place], expected[row][2], atol=2e-4)
        for place, row in enumerate((2, 0, 1)):
            np.testing.assert_allclose(logits[place], expected[row][0], atol=2e-4)
        assert logits.dtype == np.float32
    assert session.n_layer == 3
    assert session.tied

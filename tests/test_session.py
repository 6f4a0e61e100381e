"""What sessions show besides logits: hidden states and the logits of early layers, against transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import random_ids, reference_model

from gpt2_np.session.model import Model
from gpt2_np.text.gpt2 import on_torch

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


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("length", [5, 60])  # 2 · 60 positions are more than a step of decoding takes
def test_the_last_logits_alone_are_those_of_all(small: Path, backend: str, length: int) -> None:
    """The last block is spared what nobody asks for; what was remembered on the way must be whole."""
    model, ids, more = Model.from_pretrained(small, backend=backend), random_ids(2, length), random_ids(2, 1, seed=1)
    every, last, watched = model.start(), model.start(), model.start()
    all_logits = every.feed_all(ids)
    np.testing.assert_allclose(last.feed(ids), [row[-1] for row in all_logits], atol=2e-5)
    np.testing.assert_allclose(last.feed(more), every.feed(more), atol=2e-5)
    # Who watches sees every position of the last block all the same.
    logits, (stream,) = watched._observe(ids, ["blocks.2.resid_post"], last_only=True)
    assert [row.shape for row in stream] == [(length, 48)] * 2
    np.testing.assert_allclose(logits, [row[-1] for row in all_logits], atol=2e-5)


FORMS = [TEXTS, np.array(TEXTS), np.array(TEXTS, np.int32), [np.array(text) for text in TEXTS], RAGGED]


@pytest.mark.parametrize("form", FORMS, ids=["lists", "int64", "int32", "arrays", "ragged"])
def test_ids_may_come_in_any_form(small: Path, form) -> None:
    model = Model.from_pretrained(small)
    logits, singly = model.start().feed(form), [model.start().feed([list(row)])[0] for row in form]
    assert logits.shape == (3, model.config.vocab_size)
    np.testing.assert_allclose(logits, singly, atol=2e-5)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], r"each of the 2 rows must get at least one new id, got \[\]"),
        ([[1]], r"each of the 2 rows must get at least one new id, got \[1\]"),
        ([[1], []], r"each of the 2 rows must get at least one new id, got \[1, 0\]"),
        (np.zeros((2, 0), np.int64), r"each of the 2 rows must get at least one new id, got \[0, 0\]"),
        (np.zeros((2, 1, 1), np.int64), "each of the 2 rows must get at least one new id"),
        ([[1], [1000]], "ids must be between 0 and 96, got 1000"),
        ([[1, 2], [-1]], "ids must be between 0 and 96, got -1"),
        ([[1] * 6, [1] * 7], r"the cache holds 8 positions, got 2 \+ 7"),
        (np.full((2, 7), 1), r"the cache holds 8 positions, got 2 \+ 7"),
    ],
)
def test_ids_that_cannot_be_fed_change_nothing(small: Path, ids, message: str) -> None:
    session = Model.from_pretrained(small).start(capacity=8)
    session.feed([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=message):
        session.feed(ids)
    assert session.cache is not None
    assert session.cache.lengths.tolist() == [2, 2]

"""Gradients of many readings of one run are those of a run for each."""

from __future__ import annotations

import numpy as np
import pytest
from golden_transformer_lens import as_loaded

from gpt2_np.gradients import logit_difference, readings

IDS = np.random.default_rng(3).integers(1, 31, 9)


def test_each_reading_has_the_gradient_of_a_run_of_its_own() -> None:
    model = as_loaded()
    _, cache = model.run_with_cache(IDS, readings.names_read(model.config))
    places, first, second = [8, 0, 5, 5], np.array([4, 7, 9, 2]), np.array([6, 1, 3, 11])
    found = readings.of_embeddings(cache, places, cache.directions(first) - cache.directions(second))
    assert found.shape == (4, 9, model.config.n_embd)
    for at, a, b, gradient in zip(places, first, second, found, strict=True):
        run = model.run_with_gradients(IDS[: at + 1], logit_difference(a, b), "embed")
        np.testing.assert_allclose(gradient[: at + 1], run.grads["embed"][0], atol=2e-6)
        assert not gradient[at + 1 :].any()
    assert readings.of_embeddings(cache, [2], cache.directions(first[:1])).shape[1] == 3


def test_readings_are_the_same_however_they_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = as_loaded(), [0, 8, 3, 8, 0, 5]
    _, cache = model.run_with_cache(IDS, readings.names_read(model.config))
    directions = np.random.default_rng(0).normal(size=(6, model.config.n_embd)).astype(np.float32)
    together = readings.of_embeddings(cache, places, directions)
    monkeypatch.setattr(readings, "CACHED", 2 * 9 * 9)  # two readings of nine positions, and many of one
    assert [shape for *_, shape in readings.Pairs(places).parts(readings.CACHED)] == [(9, 2), (6, 4)]
    rounding = {"rtol": 2e-6, "atol": 2e-6}  # BLAS chooses the order of its sums by a product's shape
    np.testing.assert_allclose(readings.of_embeddings(cache, places, directions), together, **rounding)
    alone = [readings.of_embeddings(cache, [at], one[None])[0] for at, one in zip(places, directions, strict=True)]
    for at, one, gradient in zip(places, alone, together, strict=True):
        np.testing.assert_allclose(gradient[: at + 1], one, **rounding)

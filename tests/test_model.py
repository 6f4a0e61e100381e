"""The forward pass against transformers' GPT2LMHeadModel, over the shapes and options that a config can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_logits, reference_model, save
from transformers.activations import ACT2CLS, ACT2FN

from gpt2_np.engine import kernels
from gpt2_np.model import ops
from gpt2_np.model.config import ACTIVATIONS
from gpt2_np.session.model import Model

BACKENDS = ["numpy", "numba"]
OPTIONS = [
    {},
    {"n_layer": 1, "n_head": 1, "n_embd": 8},
    {"n_head": 3, "n_embd": 33, "vocab_size": 11},
    {"n_inner": 40},
    {"n_inner": 300, "n_head": 12},
    {"layer_norm_epsilon": 0.03},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    {"reorder_and_upcast_attn": True, "attn_implementation": "eager"},
    {"tie_word_embeddings": False},
]


def compare(folder: Path, reference, backend: str, ids: np.ndarray, **inputs) -> None:
    ours = Model.from_pretrained(folder, backend=backend)(ids, **inputs)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference_logits(reference, ids, **inputs), atol=1e-4, rtol=0)
    exact = Model.from_pretrained(folder, backend=backend, dtype="float64")(ids, **inputs)
    assert exact.dtype == np.float64
    if not reference.config.reorder_and_upcast_attn:  # transformers upcasts to float32 there, whatever comes in
        np.testing.assert_allclose(exact, reference_logits(reference.double(), ids, **inputs), atol=1e-10, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_every_option_of_the_configuration(fields: dict, backend: str, tmp_path: Path) -> None:
    reference = reference_model(**fields)
    ids = random_ids(2, 20, reference.config.vocab_size)
    compare(save(reference, tmp_path), reference, backend, ids)


def test_the_table_of_activations_is_transformers_own() -> None:
    assert sorted(ACTIVATIONS) == sorted(ACT2CLS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, backend: str, tmp_path: Path) -> None:
    reference = reference_model(activation_function=activation, n_layer=2)
    compare(save(reference, tmp_path), reference, backend, random_ids(1, 12))


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"prelu", "xielu"}))  # which learn
def test_every_activation_is_transformers_own_to_rounding(activation: str) -> None:
    x = np.random.default_rng(0).standard_normal(4000) * 3
    expected = ACT2FN[activation](torch.tensor(x)).numpy()
    for implementation in (ops, kernels):
        np.testing.assert_allclose(implementation.activate(x, activation), expected, rtol=1e-14, atol=4e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_token_type_ids_are_looked_up_in_wte_and_added(backend: str, small: Path) -> None:
    compare(small, reference_model(), backend, random_ids(2, 9), token_type_ids=random_ids(2, 9, seed=5))


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    heads=st.integers(1, 6),
    width=st.integers(1, 40),
    layers=st.integers(1, 3),
    vocabulary=st.integers(1, 130),
    inner=st.none() | st.integers(1, 90),
    rows=st.integers(1, 3),
    positions=st.integers(1, 24),
    chunk=st.integers(1, 24),
    tied=st.booleans(),
    seed=st.integers(0, 2**31),
)
@example(heads=2, width=1, layers=3, vocabulary=27, inner=None, rows=1, positions=7, chunk=1, tied=False, seed=1969)
@settings(max_examples=40, deadline=None)
def test_any_shape_whole_and_in_chunks(
    tmp_path_factory, backend, heads, width, layers, vocabulary, inner, rows, positions, chunk, tied, seed
) -> None:
    reference = reference_model(
        seed,
        n_head=heads,
        n_embd=heads * width,
        n_layer=layers,
        vocab_size=vocabulary,
        n_inner=inner,
        n_positions=24,
        tie_word_embeddings=tied,
    )
    model = Model.from_pretrained(save(reference, tmp_path_factory.mktemp("any")), backend=backend)
    ids = random_ids(rows, positions, vocabulary, seed)
    expected = reference_logits(reference, ids)
    # Two entries that are nearly alike make layer norm magnify every rounding, torch's own too.
    within = 1e-4 + 2 * float(np.abs(reference_logits(reference.double(), ids) - expected).max())
    np.testing.assert_allclose(model(ids), expected, atol=within, rtol=1e-5)
    session = model.start()
    for start in range(0, positions, chunk):
        logits = session.feed(ids[:, start : start + chunk])
        end = min(start + chunk, positions) - 1
        np.testing.assert_allclose(logits, expected[:, end], atol=within, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_at_a_time_to_the_end_of_the_context(backend: str, small: Path) -> None:
    model, ids = Model.from_pretrained(small, backend=backend), random_ids(1, 64)
    whole, session = model(ids), model.start()
    for position in range(64):
        np.testing.assert_allclose(session.feed(ids[:, position : position + 1]), whole[:, position], atol=1e-4)
    with pytest.raises(ValueError, match="the cache holds 64 positions, got 64"):
        session.feed([[1]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_different_lengths_give_what_each_gives_alone(backend: str, small: Path) -> None:
    model = Model.from_pretrained(small, backend=backend)
    rows = [random_ids(1, length, seed=length)[0] for length in (3, 11, 1, 30)]
    together, alone = model.start(), [model.start() for _ in rows]
    fed = rows
    for _ in range(8):
        logits = together.feed(fed)
        apart = np.concatenate([session.feed([row]) for session, row in zip(alone, fed, strict=True)])
        np.testing.assert_allclose(logits, apart, atol=1e-5)
        fed = logits.argmax(-1)[:, None]


def test_readable_path_is_what_capture_computes(small: Path) -> None:
    model = Model.from_pretrained(small, backend="numpy")
    ids = random_ids(2, 15)
    logits, cache = model.run_with_cache(ids)
    everything, _ = model.run_with_cache(ids, ["*"])
    np.testing.assert_array_equal(logits, model(ids))
    np.testing.assert_array_equal(everything, model(ids))
    assert cache["blocks.1.attn.hook_pattern"].shape == (2, 4, 15, 15)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 97]], "ids must be between 0 and 96, got 97"),
        ([-1], "ids must be between 0 and 96, got -1"),
        ([0.5], "ids must be whole numbers"),
        ([], "ids must be whole numbers"),
        ([0] * 65, "the model has 64 positions, got 65 ids"),
    ],
)
def test_wrong_ids_are_refused(ids: list, message: str, small: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Model.from_pretrained(small)(ids)

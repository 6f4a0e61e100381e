"""Every gradient against torch.autograd, in float64 and float32, over what a configuration can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import Graph, assert_close, ours, parameter_gradients, transformed
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model

from gpt2_np.gradients import cross_entropy
from gpt2_np.model.config import ACTIVATIONS
from gpt2_np.model.params import flatten
from gpt2_np.model.taps import ON_REQUEST, points

EVERYTHING = ["*", *(f"*.{name}" for name in ON_REQUEST)]


def compare(reference: Any, lengths: list[int], keep: str = "all", types: bool = False, seed: int = 0) -> None:
    """The gradients of the loss of rows of these lengths, ours and torch's, at every name and of every parameter."""
    V = reference.config.vocab_size
    rows = [random_ids(1, length, V, seed + number)[0] for number, length in enumerate(lengths)]
    kinds = [random_ids(1, length, V, seed + 50 + number)[0] for number, length in enumerate(lengths)]
    model = ours(reference)
    run = model.run_with_gradients(
        [row.tolist() for row in rows],
        cross_entropy(),
        EVERYTHING,
        parameters=True,
        keep=keep,
        token_type_ids=[row.tolist() for row in kinds] if types else None,
    )
    longest = max(lengths)
    ids, token_types, labels = (np.zeros((len(rows), longest), np.int64) for _ in range(3))
    labels[:] = -100
    for number, row in enumerate(rows):
        ids[number, : len(row)], labels[number, : len(row)] = row, row
        token_types[number, : len(row)] = kinds[number]
    graph = Graph()
    logits = transformed(reference, ids, graph, token_types if types else None)
    losses = [
        torch.nn.functional.cross_entropy(logits[number, :-1], torch.tensor(labels[number, 1:]))
        for number in range(len(rows))
    ]
    reference.zero_grad()
    torch.stack(losses).sum().backward()
    np.testing.assert_allclose(run.value, [loss.item() for loss in losses], rtol=1e-12)
    np.testing.assert_array_equal(run.lengths, lengths)
    assert set(run.grads) == set(points(model.config))
    expected = graph.gradients()
    for name in expected:
        if name.endswith("pattern"):  # those of keys behind a row's end are left out
            expected[name] = expected[name] * (np.arange(longest) < np.array(lengths)[:, None])[:, None, None]
    assert_close(dict(run.grads), expected)
    assert run.params is not None
    assert_close(dict(flatten(run.params)), parameter_gradients(reference))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    compare(reference_model(activation_function=activation, n_layer=2).double(), [9, 4])


@pytest.mark.parametrize(
    "fields",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"tie_word_embeddings": False},
        {"layer_norm_epsilon": 0.03, "n_inner": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("keep", ["all", "layers", "inputs"])
def test_every_option_however_much_is_kept(fields: dict, keep: str) -> None:
    compare(reference_model(n_layer=2, **fields).double(), [7, 7], keep, types=keep == "layers")


SHAPES = {
    "heads": st.integers(1, 5),
    "width": st.integers(1, 9),
    "layers": st.integers(1, 3),
    "vocabulary": st.integers(2, 60),
    "inner": st.none() | st.integers(1, 40),
    "activation": st.sampled_from(sorted(ACTIVATIONS)),
    "lengths": st.lists(st.integers(2, 13), min_size=1, max_size=3),
    "tied": st.booleans(),
    "scaled": st.booleans(),
    "by_layer": st.booleans(),
    "types": st.booleans(),
    "keep": st.sampled_from(["all", "layers", "inputs"]),
    "seed": st.integers(0, 2**31),
}


def compare_shape(
    heads: int,
    width: int,
    layers: int,
    vocabulary: int,
    inner: int | None,
    activation: str,
    lengths: list[int],
    tied: bool,
    scaled: bool,
    by_layer: bool,
    types: bool,
    keep: str,
    seed: int,
) -> None:
    reference = reference_model(
        seed,
        n_head=heads,
        n_embd=heads * width,
        n_layer=layers,
        vocab_size=vocabulary,
        n_inner=inner,
        activation_function=activation,
        tie_word_embeddings=tied,
        scale_attn_weights=scaled,
        scale_attn_by_inverse_layer_idx=by_layer,
        n_positions=13,
    ).double()
    compare(reference, lengths, keep, types, seed)


@given(**SHAPES)
@settings(max_examples=110)
def test_every_shape(**shape: Any) -> None:
    compare_shape(**shape)


@pytest.mark.slow
@given(**SHAPES)
@settings(max_examples=2000)
def test_many_more_shapes(**shape: Any) -> None:
    compare_shape(**shape)


def test_the_reference_written_out_is_transformers_own() -> None:
    """Its logits, and its parameters' gradients, are those of GPT2LMHeadModel's own forward pass."""
    reference = reference_model().double()
    ids = random_ids(1, 11)
    logits = transformed(reference, ids, lambda name, x: x)
    torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(ids[0, 1:])).backward()
    written_out = {name: x.copy() for name, x in parameter_gradients(reference).items()}
    reference.zero_grad()
    out = reference(torch.tensor(ids))
    torch.nn.functional.cross_entropy(out.logits[0, :-1], torch.tensor(ids[0, 1:])).backward()
    np.testing.assert_allclose(logits.detach().numpy(), out.logits.detach().numpy(), atol=1e-12)
    assert_close(written_out, parameter_gradients(reference))

"""Attribution graphs: sums that are exact, and effects that are those of the model with everything held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dictionary_folders import random_dictionary
from golden_transformer_lens import as_loaded

from gpt2_np.internals.dictionaries import Dictionary
from gpt2_np.internals.dictionaries.graph import Graph, graph
from gpt2_np.session.model import Model

IDS = np.random.default_rng(5).integers(1, 31, 9)


@pytest.fixture(scope="module")
def model() -> Model:
    return as_loaded()


def transcoders(architecture: str, reads: str) -> list[Dictionary]:
    shape = {"architecture": architecture, "d_in": 16, "d_sae": 24, "d_out": 16, "apply_b_dec_to_input": False}
    return [
        random_dictionary(
            shape | {"hook_name": f"blocks.{layer}.{reads}", "hook_name_out": f"blocks.{layer}.hook_mlp_out"}, layer
        )
        for layer in range(2)
    ]


KINDS = [
    (architecture, reads)
    for architecture in ("transcoder", "skip_transcoder", "jumprelu_transcoder")
    for reads in ("ln2.hook_normalized", "mlp.hook_in")
]


@pytest.mark.parametrize(("architecture", "reads"), KINDS)
def test_edges_and_bias_add_up_to_the_pre_activation(model: Model, architecture: str, reads: str) -> None:
    made = transcoders(architecture, reads)
    found = graph(model, made, IDS, 4, 9)
    np.testing.assert_allclose(found.edges.sum(axis=1) + found.biases, found.values, atol=1e-5)
    logits = model(IDS)
    assert found.values[-1] == pytest.approx(float(logits[-1, 4] - logits[-1, 9]), abs=1e-5)
    for (kind, layer, at, number), value in zip(found.targets[:-1], found.activations, strict=True):
        assert kind == "feature"
        x = model.run_with_cache(IDS, made[layer].hook_name)[1][made[layer].hook_name][0, at]
        assert made[layer].encode(x)[number] == pytest.approx(value, abs=1e-5)
    assert [one for one in found.sources if one[0] == "feature"] == found.targets[:-1]
    # No edge leads back, nor from a later position to an earlier one.
    for row, (_, layer, at, _) in enumerate(found.targets):
        for column, (_, before, there, _) in enumerate(found.sources):
            if before >= layer or there > at:
                assert found.edges[row, column] == 0


def test_positions_that_training_left_out_have_no_features(model: Model) -> None:
    made = transcoders("jumprelu_transcoder", "ln2.hook_normalized")
    every, some = (graph(model, made, IDS, 4, skip_first=first) for first in (0, 2))
    assert min(at for _, _, at, _ in every.targets) == 0
    assert min(at for _, _, at, _ in some.targets) == 2
    np.testing.assert_allclose(some.edges.sum(axis=1) + some.biases, some.values, atol=1e-5)
    trained = [Dictionary(replace(one.config, metadata={"training": {"skip_first": 2}}), one.tensors) for one in made]
    assert graph(model, trained, IDS, 4).sources == some.sources
    with pytest.raises(ValueError, match="skip_first must be at least 0, got -1"):
        graph(model, made, IDS, 4, skip_first=-1)


def test_pruning_keeps_the_sums(model: Model) -> None:
    found = graph(model, transcoders("transcoder", "ln2.hook_normalized"), IDS, 4)
    some = found.pruned(10)
    assert len(some.activations) == 10
    np.testing.assert_allclose(some.edges.sum(axis=1) + some.biases, some.values, atol=1e-5)
    first = len(IDS)
    assert found.influence()[first : first + len(found.activations)].max() == pytest.approx(
        some.influence()[first : first + 10].max(), rel=0.5
    )


def test_effects_are_those_of_all_paths(model: Model) -> None:
    found = graph(model, transcoders("transcoder", "ln2.hook_normalized"), IDS, 4, 9)
    first, n = len(IDS), len(found.activations)
    feature = int(np.abs(found.effects()).argmax())
    # Followed by hand: layer by layer, what a feature loses is what those before it have lost.
    lost = np.zeros(n)
    lost[feature] = -1.0
    for target in range(feature + 1, n):
        lost[target] = found.edges[target, first : first + n] @ lost / found.activations[target]
    expected = found.edges[-1, first : first + n] @ lost
    assert found.effects()[feature] == pytest.approx(expected, rel=1e-6)
    assert isinstance(found, Graph)


def test_other_dictionaries_are_refused(model: Model) -> None:
    made = transcoders("transcoder", "ln2.hook_normalized")
    with pytest.raises(ValueError, match="a transcoder for each of 2 layers, got 1"):
        graph(model, made[:1], IDS, 4)
    with pytest.raises(ValueError, match="layer 0's transcoder must lead from its ln2 to its mlp_out"):
        graph(model, made[::-1], IDS, 4)
    with pytest.raises(ValueError, match="position must be between -9 and 8"):
        graph(model, made, IDS, 4, position=9)

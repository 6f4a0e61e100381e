"""The cache's decompositions against TransformerLens's, and that their sums reproduce stream and logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_transformer_lens import golden, processed, under
from reference import random_ids

from gpt2_np.model.activations import ActivationCache, NotCaptured
from gpt2_np.session.model import Model

IDS = golden()["ids"]
METHODS = {
    "accumulated": lambda c: c.accumulated_resid(incl_mid=True)[0],
    "accumulated_ln": lambda c: c.accumulated_resid(apply_ln=True)[0],
    "accumulated_layer_1": lambda c: c.accumulated_resid(1, mlp_input=True, apply_ln=True)[0],
    "decomposed": lambda c: c.decompose_resid()[0],
    "decomposed_ln_last": lambda c: c.decompose_resid(apply_ln=True, pos_slice=-1)[0],
    "decomposed_mlp_input": lambda c: c.decompose_resid(1, mlp_input=True, apply_ln=True)[0],
    "decomposed_attn": lambda c: c.decompose_resid(mode="attn")[0],
    "heads": lambda c: c.stack_head_results()[0],
    "heads_remainder": lambda c: c.stack_head_results(incl_remainder=True, apply_ln=True)[0],
    "neurons": lambda c: c.stack_neuron_results(neuron_slice=slice(3, 9), incl_remainder=True)[0],
    "neurons_ln": lambda c: c.stack_neuron_results(1, neuron_slice=slice(3, 9), apply_ln=True, mlp_input=True)[0],
    "neurons_projected": lambda c: c.stack_neuron_results(
        apply_ln=True, incl_remainder=True, project_output_onto=c.params.lm_head[5]
    )[0],
    "full": lambda c: c.get_full_resid_decomposition()[0],
    "full_mlps_ln": lambda c: c.get_full_resid_decomposition(expand_neurons=False, apply_ln=True)[0],
    "attrs": lambda c: c.logit_attrs(c.decompose_resid()[0], 7),
    "attrs_difference": lambda c: c.logit_attrs(
        c.stack_head_results()[0][:, :, :-1], IDS[:, 1:], (IDS[:, 1:] + 1) % 31, pos_slice=slice(0, 7)
    ),
    "attrs_per_row": lambda c: c.logit_attrs(c.stack_head_results()[0], IDS[:, 3]),
}


@pytest.fixture(scope="module")
def folded() -> ActivationCache:
    return processed().run_with_cache(IDS)[1]


def test_no_method_of_the_golden_file_is_forgotten() -> None:
    assert set(METHODS) == set(under("method"))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_transformer_lens_own(name: str, folded: ActivationCache) -> None:
    theirs = under("method")[name]
    if name == "accumulated_ln":  # with the final norm's bias, which stays in the norm here
        theirs = theirs + folded.params.ln_f.bias
    np.testing.assert_allclose(METHODS[name](folded), theirs, atol=5e-5)


@pytest.fixture(params=["as loaded", "processed"])
def run(request: pytest.FixtureRequest, small: Path) -> tuple[np.ndarray, ActivationCache]:
    model = Model.from_pretrained(small, dtype="float64")
    if request.param == "processed":
        from gpt2_np.internals.processing import process_weights

        model = model.with_params(process_weights(model.params))
    return model.run_with_cache(random_ids(2, 9))


def test_decompositions_add_up_to_the_stream(run) -> None:
    _, cache = run
    for layer in (1, 2, None):
        stream = cache.accumulated_resid(layer)[0][-1]
        for stack, labels in (
            cache.decompose_resid(layer),
            cache.stack_head_results(layer, incl_remainder=True),
            cache.stack_neuron_results(layer, incl_remainder=True),
            cache.get_full_resid_decomposition(layer),
        ):
            assert len(stack) == len(labels)
            np.testing.assert_allclose(stack.sum(0), stream, atol=1e-11)
    middle = cache.decompose_resid(1, mlp_input=True)[0].sum(0)
    np.testing.assert_allclose(middle, cache["resid_mid", 1], atol=1e-11)


@pytest.mark.parametrize("tokens", [5, [5, 6], np.arange(18).reshape(2, 9)], ids=["one", "a row", "a position"])
def test_attributions_add_up_to_the_logits(run, tokens) -> None:
    logits, cache = run
    ids = np.broadcast_to(np.asarray(tokens).reshape(-1, 1) if np.ndim(tokens) < 2 else tokens, (2, 9))
    expected = np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    for stack, _ in (cache.decompose_resid(), cache.get_full_resid_decomposition()):
        bias = cache.logit_bias(ids)
        np.testing.assert_allclose(cache.logit_attrs(stack, tokens).sum(0) + bias, expected, atol=1e-10)
    difference = cache.logit_attrs(stack, tokens, np.asarray(tokens) + 1).sum(0)
    below = np.take_along_axis(logits, ids[..., None] + 1, -1)[..., 0]
    biases = cache.logit_bias(ids) - cache.logit_bias(ids + 1)
    np.testing.assert_allclose(difference + biases, expected - below, atol=1e-10)


def test_projected_neurons_are_the_products(run) -> None:
    _, cache = run
    directions = np.random.default_rng(0).normal(size=(48, 2))
    for frozen in (False, True):
        whole = cache.stack_neuron_results(incl_remainder=True, apply_ln=frozen)[0]
        projected = cache.stack_neuron_results(incl_remainder=True, apply_ln=frozen, project_output_onto=directions)[0]
        np.testing.assert_allclose(projected, whole @ directions, atol=1e-11)


def test_frozen_norm_of_the_whole_stream_is_the_norm(run) -> None:
    _, cache = run
    stream = cache.accumulated_resid()[0]
    frozen = cache.apply_ln_to_stack(stream)[-1] + cache.params.ln_f.bias
    np.testing.assert_allclose(frozen, cache["ln_final.out"], atol=1e-12)
    again = cache.apply_ln_to_stack(stream, recompute_ln=True)[-1]
    np.testing.assert_allclose(again, cache["ln_final.out"], atol=1e-12)


def test_look_up_and_mistakes(run) -> None:
    _, cache = run
    np.testing.assert_array_equal(cache["pattern", -1], cache["blocks.2.attn.hook_pattern"])
    np.testing.assert_array_equal(cache["hook_resid_pre", 0], cache["blocks.0.hook_in"])
    assert cache.get("nothing") is None
    assert "hook_embed" in cache
    with pytest.raises(NotCaptured, match=r"^'blocks.0.attn.result' was not captured; the nearest is 'blocks.0.attn."):
        cache["result", 0]
    for bad, message in [
        (lambda: cache["pattern", 3], "layer must be between -3 and 2, got 3"),
        (lambda: cache.decompose_resid(4), "layer must be between 0 and 3, or -1 for the end, got 4"),
        (lambda: cache.decompose_resid(mode="heads"), "mode must be"),
        (lambda: cache.logit_attrs(cache.decompose_resid()[0], 97), "tokens must be between 0 and 96, got 97"),
        (lambda: cache.logit_attrs(cache.decompose_resid()[0], 1, [1, 2]), "must have the same shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad()

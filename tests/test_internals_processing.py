"""Rewritten parameters: TransformerLens's own, and the predictions stay."""

from __future__ import annotations

import numpy as np
import pytest
from golden_transformer_lens import CONFIG, as_loaded, golden
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids

from gpt2_np.internals import processing
from gpt2_np.model.params import Norm, flatten, map_arrays
from gpt2_np.session.model import Model

STEPS = ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"]


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def exact() -> Model:
    model = as_loaded()
    return model.with_params(map_arrays(model.params, lambda array: array.astype(np.float64)))


@given(st.permutations(STEPS), st.integers(1, 4), st.sampled_from([None, 0, 3]))
def test_no_order_of_steps_changes_what_is_predicted(exact: Model, steps, count: int, dead: int | None) -> None:
    if dead is not None:  # a final gain of exactly 0 can't be folded away
        gain = exact.params.ln_f.weight.copy()
        gain[dead] = 0
        exact = exact.with_params(exact.params._replace(ln_f=Norm(gain, exact.params.ln_f.bias)))
    params = exact.params
    for step in steps[:count]:
        params = getattr(processing, step)(params)
    ids = random_ids(2, 11, 31)
    new, old = exact.with_params(params)(ids), exact(ids)
    np.testing.assert_allclose(log_softmax(new), log_softmax(old), atol=1e-11)
    if "center_unembed" not in steps[:count]:
        np.testing.assert_allclose(new, old, atol=1e-11)


def test_the_old_parameters_stay_as_they_were() -> None:
    model = as_loaded()
    before = {name: array.copy() for name, array in flatten(model.params)}
    processing.process_weights(model.params)
    for name, array in flatten(model.params):
        np.testing.assert_array_equal(array, before[name])


def test_the_new_parameters_are_what_their_names_say(exact: Model) -> None:
    params = processing.process_weights(exact.params)
    assert (params.ln_f.weight == 1).all()
    assert all((block.ln_1.weight == 1).all() for block in params.h)
    for block in params.h:
        assert not [norm for norm in (block.ln_1, block.ln_2) if norm.bias.any()]
        assert not block.attn.c_attn.bias[2 * CONFIG.n_embd :].any()
        for array in (
            block.attn.c_attn.weight.T,
            block.mlp.c_fc.weight.T,
            block.attn.c_proj.weight,
            block.mlp.c_proj.weight,
            block.mlp.c_proj.bias,
        ):
            np.testing.assert_allclose(array.mean(-1), 0, atol=1e-15)
    np.testing.assert_allclose(params.lm_head.mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(params.wte.mean(-1), 0, atol=1e-15)


def test_predictions_are_those_of_transformer_lens_with_its_processing() -> None:
    model = as_loaded()
    logits = model.with_params(processing.process_weights(model.params))(golden()["ids"])
    np.testing.assert_allclose(log_softmax(logits), log_softmax(golden()["processed.logits"]), atol=2e-5)

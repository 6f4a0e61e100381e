"""What parts add and what is left without them: against the stream's own decomposition, torch with hooks, and sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_transformer_lens import as_loaded, golden
from gradient_reference import ours
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model

from gpt2_np.internals import kept_parts
from gpt2_np.internals.ablation import ablate
from gpt2_np.internals.direct import NAMES, direct
from gpt2_np.internals.variants import logit_difference

L, H, K = 3, 4, 12
METRIC = logit_difference(5, 9)


@settings(max_examples=15)
@given(position=st.integers(-9, 8), token=st.integers(0, 96), versus=st.none() | st.integers(0, 96))
def test_what_parts_add_is_the_logit(position: int, token: int, versus: int | None) -> None:
    model, ids = ours(reference_model(1).double()), random_ids(1, 9)[0]
    found = direct(model, ids, token, versus, position=position)
    logits, cache = model.run_with_cache(ids[None], NAMES)
    here = logits[0, position]
    np.testing.assert_allclose(found.logit, here[token] - (0 if versus is None else here[versus]), atol=1e-12)
    np.testing.assert_allclose(found.total, found.logit, atol=1e-10)
    np.testing.assert_allclose(found.scale, cache["ln_final.scale"][0, position, 0])
    heads = cache.logit_attrs(cache.stack_head_results()[0], token, versus)[:, 0, position].reshape(L, H)
    np.testing.assert_allclose(found.heads, heads, atol=1e-10)
    parts = cache.logit_attrs(cache.decompose_resid()[0], token, versus)[:, 0, position]
    names, values = found.layers()
    assert names[:4] == ["embed", "pos_embed", "0_attn", "0_mlp"]
    np.testing.assert_allclose(values, parts, atol=1e-10)


def test_direct_attribution_is_transformer_lens_own_and_refuses() -> None:
    model, ids = as_loaded(), golden()["ids"][0]
    found = direct(model, ids, 5)
    np.testing.assert_allclose(found.total, model(ids)[-1, 5], atol=1e-5)
    with pytest.raises(ValueError, match="position must be between -"):
        direct(model, ids, 5, position=99)
    with pytest.raises(ValueError, match="one prompt, got 2 rows"):
        direct(model, np.stack([ids, ids]), 5)
    with pytest.raises(ValueError, match="tokens must be between 0 and 30, got 31"):
        direct(model, ids, 31)


def hooked(reference: Any, ids: np.ndarray, heads: dict[int, dict[int, Any]], mlps: dict[int, Any]) -> np.ndarray:
    """torch's logits where heads' z, (T, K) or 0, and MLPs' outputs, (T, D) or 0, were replaced."""
    handles = []

    def replace_z(layer: int) -> Any:
        def hook(module: Any, inputs: tuple) -> tuple:
            z = inputs[0].clone()
            for head, value in heads[layer].items():
                z[..., head * K : (head + 1) * K] = torch.as_tensor(value)
            return (z,)

        return hook

    for layer in heads:
        handles.append(reference.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace_z(layer)))
    for layer, value in mlps.items():
        hook = lambda module, inputs, out, value=value: torch.as_tensor(value).expand_as(out).clone()  # noqa: E731
        handles.append(reference.transformer.h[layer].mlp.register_forward_hook(hook))
    with torch.no_grad():
        logits = reference(torch.tensor(ids)).logits.numpy()
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("how", kept_parts.HOW)
def test_circuits_alone_and_taken_out_are_torchs_with_hooks(how: str) -> None:
    reference = reference_model(2).double()
    model, ids, texts = ours(reference), random_ids(2, 7), random_ids(5, 7, seed=3)
    _, cache = model.run_with_cache(texts, ["*.z", "*.mlp_out"])
    chosen = np.random.default_rng(4).integers(5, size=1)[0]
    say = {
        "zero": lambda x: np.zeros(()),
        "mean": lambda x: x.mean((0, 1)),
        "position mean": lambda x: x.mean(0),
        "resample": lambda x: x[chosen].copy(),
    }[how]
    z = [[say(cache["z", layer][:, :, head]) for head in range(H)] for layer in range(L)]
    out = [say(cache["mlp_out", layer]) for layer in range(L)]
    circuit, mlps = [(0, 1), (2, 3), (2, 0)], [1]
    outside = {layer: {head: z[layer][head] for head in range(H) if (layer, head) not in circuit} for layer in range(L)}
    inside = {0: {1: z[0][1]}, 2: {3: z[2][3], 0: z[2][0]}}
    everything = {layer: dict(enumerate(z[layer])) for layer in range(L)}
    others = {layer: out[layer] for layer in (0, 2)}
    options: dict[str, Any] = {"how": how, "seed": 4} | ({} if how == "zero" else {"reference": texts})
    expected = {
        "whole": hooked(reference, ids, {}, {}),
        "circuit": hooked(reference, ids, outside, others),
        "rest": hooked(reference, ids, inside, {1: out[1]}),
        "nothing": hooked(reference, ids, everything, dict(enumerate(out))),
    }
    found = kept_parts.circuit_alone(model, ids, METRIC, circuit, mlps, **options)
    for name, logits in expected.items():
        np.testing.assert_allclose(found[name], METRIC(logits), atol=1e-10, err_msg=name)
    with_mlps = kept_parts.circuit_alone(model, ids, METRIC, circuit, **options)
    np.testing.assert_allclose(with_mlps["circuit"], METRIC(hooked(reference, ids, outside, {})), atol=1e-10)
    np.testing.assert_allclose(with_mlps["rest"], METRIC(hooked(reference, ids, inside, {})), atol=1e-10)
    np.testing.assert_allclose(with_mlps["nothing"], METRIC(hooked(reference, ids, everything, {})), atol=1e-10)


def test_a_curve_begins_whole_goes_by_single_ablations_and_ends_as_all_of_them() -> None:
    model, ids = ours(reference_model(2).double()), random_ids(2, 7)
    every = list(np.ndindex(L, H))
    order = [every[number] for number in np.random.default_rng(0).permutation(len(every))]
    told: list[int] = []
    curve = kept_parts.ablation_curve(model, ids, METRIC, order, progress=told.append)
    assert curve.shape == (L * H + 1, 2)
    assert sum(told) == L * H + 1
    np.testing.assert_allclose(curve[0], METRIC(model(ids)))
    np.testing.assert_allclose(curve[1, 0], ablate(model, ids[0], METRIC)[order[0]])
    silent = model.with_edits({"blocks.*.attn.z": np.zeros_like})
    np.testing.assert_allclose(curve[-1], METRIC(silent(ids)))
    np.testing.assert_array_equal(kept_parts.ablation_curve(model, ids, METRIC, order[::-1])[-1], curve[-1])


def test_a_whole_circuit_is_the_whole_model_and_what_is_not_there_is_refused() -> None:
    model, ids, texts = ours(reference_model(2)), random_ids(1, 7), random_ids(3, 5)
    whole = kept_parts.circuit_alone(model, ids, METRIC, list(np.ndindex(L, H)), range(L))
    np.testing.assert_array_equal(whole["circuit"], whole["whole"])
    np.testing.assert_array_equal(whole["rest"], whole["nothing"])
    for heads, mlps, why in [
        ([(3, 0)], None, r"a head must be a layer below 3 and a number below 4, got 3\.0"),
        ([(0, -1)], None, r"got 0\.-1"),
        ([], [3], "an MLP's layer must be between 0 and 2, got 3"),
    ]:
        with pytest.raises(ValueError, match=why):
            kept_parts.circuit_alone(model, ids, METRIC, heads, mlps)
    with pytest.raises(ValueError, match="how must be one of zero, mean, position mean, resample, got 'x'"):
        kept_parts.ablation_curve(model, ids, METRIC, [(0, 0)], how="x")
    with pytest.raises(ValueError, match="position mean ablation needs reference texts: "):
        kept_parts.silence_values(model, "position mean", 7)
    with pytest.raises(ValueError, match="reference texts of at least 7 tokens, got 5"):
        kept_parts.silence_values(model, "position mean", 7, texts)

"""Patching and ablation sweeps against TransformerLens's, and against single edited runs."""

from __future__ import annotations

import numpy as np
import pytest
from golden_transformer_lens import as_loaded, golden, under
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids

from gpt2_np.internals.ablation import ablate
from gpt2_np.internals.patching import activation_patch, path_patch
from gpt2_np.internals.variants import log_probability, logit_difference, mean_loss, run_variants
from gpt2_np.model.edits import Part

METRIC = logit_difference(5, 9)
CLEAN, CORRUPTED = golden()["clean"][0], golden()["corrupted"][0]
SWEEPS = {
    "resid_pre": ("resid_pre", "position"),
    "resid_mid": ("hook_resid_mid", "position"),
    "attn_out": ("attn_out", "position"),
    "mlp_out": ("mlp_out", "position"),
    "z": ("attn.hook_z", "head"),
    "q": ("attn.q", "head"),
    "v": ("attn.v", "head"),
    "pattern": ("attn.pattern", "head"),
    "z_by_position": ("attn.z", "head position"),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_is_transformer_lens_own(name: str) -> None:
    point, over = SWEEPS[name]
    ours = activation_patch(as_loaded(), CLEAN, CORRUPTED, METRIC, point=point, over=over, batch=5)
    theirs = under("patch")[name]
    if over == "head position":  # theirs is layer, position, head
        theirs = theirs.swapaxes(1, 2)
    np.testing.assert_allclose(ours.scores, theirs, atol=3e-5)
    assert ours.axes == ("layer", *over.split())


def test_patching_everything_restores_the_clean_run() -> None:
    result = activation_patch(as_loaded(), CLEAN, CORRUPTED, METRIC, over="layer")
    np.testing.assert_allclose(result.scores, result.clean, atol=1e-5)
    np.testing.assert_allclose(result.restored, 1, atol=1e-4)
    same = activation_patch(as_loaded(), CLEAN, CLEAN, METRIC)
    assert np.isnan(same.restored).all()


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_direct_paths_are_transformer_lens_own(kind: str) -> None:
    theirs = under("patch")[f"direct_path.{kind}"]
    for head in range(2):
        ours = path_patch(as_loaded(), CLEAN, CORRUPTED, METRIC, [(f"blocks.1.attn.hook_{kind}", head)])
        np.testing.assert_allclose(ours.scores[0], theirs[0, :, 1, head], atol=3e-5)
        np.testing.assert_allclose(ours.scores[1], ours.corrupted, atol=1e-5)  # a head can't talk to its own layer


def test_paths_to_the_logits_add_up_through_the_final_norm() -> None:
    """A head's direct effect on the logits is its part of the final stream exchanged, and nothing else."""
    model = as_loaded()
    _, clean = model.run_with_cache(CLEAN)
    _, corrupted = model.run_with_cache(CORRUPTED)
    ours = path_patch(model, CLEAN, CORRUPTED, METRIC, [("unembed", None)]).scores
    for layer, head in np.ndindex(2, 2):
        change = clean.head_result(layer)[:, :, head] - corrupted.head_result(layer)[:, :, head]
        edit = {"blocks.1.resid_post": corrupted["resid_post", 1] + change}
        expected = METRIC(model.run_with_edits(CORRUPTED[None], edit)[0])[0]
        np.testing.assert_allclose(ours[layer, head], expected, atol=1e-5)


def test_a_path_into_an_mlp_is_its_input_exchanged() -> None:
    model = as_loaded()
    ours = path_patch(model, CLEAN, CORRUPTED, METRIC, [("blocks.0.mlp.pre", None)])
    z = model.run_with_cache(CLEAN, "*.z")[1]["z", 0]
    for head in range(2):
        seen = model.run_with_edits(CORRUPTED, {"blocks.0.attn.z": Part(z, heads=head)}, "*.mlp.pre")[1]["pre", 0]
        logits = model.run_with_edits(CORRUPTED[None], {"blocks.0.mlp.pre": seen})[0]
        np.testing.assert_allclose(ours.scores[0, head], METRIC(logits)[0], atol=1e-5)


@given(st.integers(1, 9), st.data())
def test_a_batch_of_variants_is_what_each_gives_alone(batch: int, data: st.DataObject) -> None:
    model, pool = (
        as_loaded(),
        [
            {},
            {"embed": lambda x: x + 1},
            {"blocks.1.attn.z": Part(np.zeros_like, heads=1)},
            {"blocks.0.attn.pattern": Part(lambda p: p * p, positions=[2, 5], heads=[0])},
            {"blocks.*.mlp_out": np.zeros((1, 8, 16)), "unembed": lambda x: 2 * x},
            {"blocks.0.attn.result": Part(lambda x: -x, positions=3)},
        ],
    )
    variants = data.draw(st.lists(st.sampled_from(pool), max_size=7))
    together = run_variants(model, CLEAN, variants, METRIC, batch=batch)
    alone = [METRIC(model.run_with_edits(CLEAN[None], variant)[0])[0] for variant in variants]
    np.testing.assert_allclose(together, alone, atol=3e-5)


def test_metrics() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 8, 31))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(log_probability(3)(logits), np.log(p[:, -1, 3]))
    losses = [-np.log([row[at, CLEAN[at + 1]] for at in range(7)]).mean() for row in p]
    np.testing.assert_allclose(mean_loss(CLEAN)(logits), losses)


@pytest.mark.parametrize("what", ["heads", "mlps", "attention", "positions"])
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_ablations_are_single_edited_runs(what: str, how: str) -> None:
    model, reference = as_loaded(), random_ids(6, 8, 31)
    scores = ablate(model, CLEAN, METRIC, what=what, how=how, reference=reference, seed=3, batch=3)
    point = {"heads": "attn.z", "mlps": "mlp_out", "attention": "attn_out", "positions": "resid_pre"}[what]
    drawn = np.random.default_rng(3).integers(6, size=1)
    for index in np.ndindex(*scores.shape):
        name = f"blocks.{index[0]}.{point}"
        x = model.run_with_cache(reference if how == "mean" else reference[drawn], name)[1][name]
        value = {"zero": 0 * x, "mean": np.broadcast_to(x.mean((0, 1)), x[:1].shape), "resample": x}[how][:1]
        place = {"heads": "heads", "positions": "positions"}.get(what)
        edit = Part(value, **({place: index[1]} if place else {}))
        expected = METRIC(model.run_with_edits(CLEAN[None], {name: edit})[0])[0]
        np.testing.assert_allclose(scores[index], expected, atol=3e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: activation_patch(m, [1, 2], [1, 2, 3], METRIC), "equally many tokens, got 2 in .* and 3 in"),
        (
            lambda m: activation_patch(m, CLEAN, CORRUPTED, METRIC, point="residpre"),
            "no activation of a block is named 'residpre'; the nearest is 'resid_pre'",
        ),
        (lambda m: activation_patch(m, CLEAN, CORRUPTED, METRIC, over="token"), "over must be 'layer', .* got 'token'"),
        (lambda m: activation_patch(m, CLEAN, CORRUPTED, METRIC, over="head"), "blocks.0.resid_pre has no heads, got"),
        (lambda m: path_patch(m, CLEAN, CORRUPTED, METRIC, [("blocks.0.attn.z", 1)]), "a receiver must be a block's"),
        (lambda m: path_patch(m, CLEAN, CORRUPTED, METRIC, [("blocks.0.attn.q", 2)]), "needs a head between 0 and 1"),
        (lambda m: path_patch(m, CLEAN, CORRUPTED, METRIC, [("unembed", 2)]), "unembed has no heads, got head 2"),
        (lambda m: ablate(m, CLEAN, METRIC, how="mean"), "mean ablation needs reference texts"),
        (lambda m: ablate(m, CLEAN, METRIC, how="noise"), "how must be one of zero, mean, resample, got 'noise'"),
        (lambda m: ablate(m, CLEAN, METRIC, what="neurons"), "what must be one of heads, mlps, .* got 'neurons'"),
        (lambda m: ablate(m, CLEAN, METRIC, how="resample", reference=random_ids(2, 5, 31)), "at least 8 tokens, got"),
        (lambda m: run_variants(m, CLEAN, [{}], METRIC, batch=0), "batch must be at least 1, got 0"),
        (lambda m: run_variants(m, golden()["ids"], [{}], METRIC), "one prompt, got 2 rows"),
    ],
)
def test_mistakes_are_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(as_loaded())
    assert "\n" not in str(caught.value)

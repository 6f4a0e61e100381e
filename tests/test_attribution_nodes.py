"""Attribution by node, against patching, torch.autograd, and the definitions worked out in the plainest way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attribution_models import CLEAN, CORRUPTED, tiny, without_biases
from gradient_reference import Graph, ours, transformed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import reference_model

from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy, kl_divergence, log_probability, logit_difference
from gpt2_np.internals import attribution
from gpt2_np.model import ops
from gpt2_np.model.edits import Edit, Part
from gpt2_np.model.taps import points, select
from gpt2_np.session.model import Model

METRIC = logit_difference(4, 11)


def summed(x: np.ndarray, shape: str) -> np.ndarray:
    return x.sum(axis=-1) if shape.split()[-1] in "DKV1" else x


def value(model: Model, ids: np.ndarray, changes: dict, metric: object = METRIC) -> float:
    logits, _ = model.run_with_edits(ids[None], changes)
    return float(metric.value(logits, ids[None])[0])


@pytest.mark.parametrize("point", ["resid_pre", "attn.q", "attn.k", "attn.v", "attn.z", "mlp_out", "ln1.in"])
def test_atp_is_the_slope_of_patching(point: str) -> None:
    model = tiny()
    name = f"blocks.1.{point}"
    scores = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, names=name).scores[name]
    clean, corrupted = (model.run_with_cache(ids[None], name)[1][name] for ids in (CLEAN, CORRUPTED))
    slope, step = np.zeros_like(scores), 1e-4
    for index in np.ndindex(*scores.shape):
        place = {"positions": index[0], "heads": index[1] if len(index) > 1 else None}
        up, down = (
            value(model, CORRUPTED, {name: Part(corrupted + by * (clean - corrupted), **place)}) for by in (step, -step)
        )
        slope[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(scores, slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["atp", "relp"])
@pytest.mark.parametrize("activation", ["gelu_new", "silu"])
def test_atp_and_relp_are_torch_s(method: str, activation: str) -> None:
    reference = reference_model(activation_function=activation).double()
    model = ours(reference)
    clean, corrupted = CLEAN % model.config.vocab_size, CORRUPTED % model.config.vocab_size
    metric = logit_difference(4, 11)
    got = attribution.nodes(model, clean, corrupted, metric, method, names="*").scores
    runs = []
    for ids in (clean, corrupted):
        graph, held = Graph(), {}

        def tap(name: str, x: torch.Tensor, graph: Graph = graph, held: dict = held) -> torch.Tensor:
            if method == "relp":
                if name.endswith((".scale", ".pattern")):
                    x = x.detach()
                if name.endswith("mlp.post"):
                    pre = held.pop("pre")
                    x = pre * (x / pre).detach()
            x = graph(name, x)
            if name.endswith("mlp.pre"):
                held["pre"] = x
            return x if not (method == "relp" and name.endswith((".scale", ".pattern"))) else x.detach()

        logits = transformed(reference, ids[None], tap)
        runs.append((graph, logits))
    (logits[0, -1, 4] - logits[0, -1, 11]).backward()
    gradients = runs[1][0].gradients()
    assert got.keys() == set(select("*", model.config))
    for name, shape in points(model.config).items():
        if method == "relp" and name.endswith((".scale", ".pattern", ".attn_scores", ".q", ".k")):
            assert not got[name].any(), name
            continue
        a, b = (graph[name].detach().numpy() for graph, _ in runs)
        with np.errstate(invalid="ignore"):
            difference = np.where(np.isinf(a), 0, a - b)
        expected = summed(difference * gradients[name], shape)[0]
        np.testing.assert_allclose(got[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("method", ["atp", "relp"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "metric", [METRIC, logit_difference(4, 11, position=2), log_probability([3, 4, 5]), cross_entropy()], ids=repr
)
def test_a_run_of_both_sides_is_that_of_each(method: str, several: bool, metric: Any) -> None:
    """A model with an edit that changes nothing runs each side by itself, from the start to all logits."""
    model = tiny()
    rows = 3 if several or "probability" in repr(metric).lower() else 1
    clean, corrupted = ([np.roll(one, row) for row in range(rows)] for one in (CLEAN, CORRUPTED))
    edited = model.with_edits({"embed": Edit(lambda x: x, lambda x, gradient: gradient)})
    for names in ("*", [name for name in points(model.config) if not name.startswith(("ln_final", "unembed"))]):
        together, apart = (
            attribution.nodes(one, clean, corrupted, metric, method, names=names) for one in (model, edited)
        )
        np.testing.assert_allclose(together.clean, apart.clean, atol=1e-5)
        np.testing.assert_allclose(together.corrupted, apart.corrupted, atol=1e-5)
        assert list(together.scores) == list(apart.scores)
        for name, x in apart.scores.items():
            np.testing.assert_allclose(together.scores[name], x, atol=2e-5, err_msg=name)


def test_relevance_is_conserved() -> None:
    model = tiny(3, without_biases)
    run = model.run_with_gradients(CLEAN, METRIC, gradient_edits=attribution.relevance(model))
    cuts = [["embed", "pos_embed"], ["ln_final.out"], ["unembed"]]
    for layer in range(model.config.n_layer):
        at = f"blocks.{layer}."
        cuts += [[at + "resid_pre"], [at + "resid_mid"], [at + "resid_post"]]
    for cut in cuts:
        whole = sum(float((run.cache[name] * run.grads[name]).sum()) for name in cut)
        assert whole == pytest.approx(float(run.value[0]), rel=1e-9), cut
    gradient = model.run_with_gradients(CLEAN, METRIC, ["embed", "pos_embed"])
    plain = sum(float((gradient.cache[name] * gradient.grads[name]).sum()) for name in gradient.cache)
    assert plain != pytest.approx(float(run.value[0]), rel=1e-2)  # gradients themselves don't conserve it


def test_atp_star_is_its_definition() -> None:
    model = tiny(3)
    L = model.config.n_layer
    names = ["blocks.1.attn.q", "blocks.1.attn.k", "blocks.0.attn.z", "blocks.1.mlp.post", "blocks.1.resid_pre"]
    got = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, "atp*", names=names).scores
    plain = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, names=names).scores
    both = ["blocks.*.attn.*", "blocks.*.resid_pre", "blocks.*.mlp.post", "blocks.*_out"]
    _, clean = model.run_with_cache(CLEAN[None], both)
    _, corrupted = model.run_with_cache(CORRUPTED[None], both)
    estimates: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for layer in range(L):
        held = {f"blocks.{layer}.{part}": corrupted[f"blocks.{layer}.{part}"] for part in ("attn_out", "mlp_out")}
        run = model.with_edits(held).run_with_gradients(CORRUPTED, METRIC, [*names, "blocks.1.attn.pattern"])
        pattern = run.grads["blocks.1.attn.pattern"]
        for name in names:
            difference = clean[name] - corrupted[name]
            estimates[name].append(summed(difference * run.grads[name], points(model.config)[name])[0])
        for part in "qk":
            name = f"blocks.1.attn.{part}"
            for t, h in np.ndindex(len(CLEAN), model.config.n_head):
                x = {letter: corrupted[f"blocks.1.attn.{letter}"].copy() for letter in "qk"}
                x[part][0, t, h] = clean[name][0, t, h]
                scores = ops.attention_scores(
                    x["q"], x["k"].swapaxes(1, 2), np.zeros(1, int), model.config.head_width**-0.5
                )
                change = ops.softmax(scores) - corrupted["blocks.1.attn.pattern"]
                estimates[name][-1][t, h] = (pattern * change)[0].sum()
    for name in names:
        all_of_it = np.stack(estimates[name])
        count = L if name.endswith("resid_pre") else L - 1
        expected = np.sign(all_of_it.sum(0)) * np.abs(all_of_it).sum(0) / count
        np.testing.assert_allclose(got[name], expected, rtol=1e-9, atol=1e-13, err_msg=name)
        assert np.abs(got[name] - plain[name]).max() > 1e-6, name


def test_a_key_of_a_saturated_head_is_seen_where_the_gradient_sees_nothing() -> None:
    scores = np.array([[[0.0, -np.inf, -np.inf], [60.0, 0.0, -np.inf], [0.0, 900.0, 1.0]]])
    exchanged = scores + np.array([[[5.0, 0.0, 0.0], [-80.0, 0.0, 0.0], [0.0, -950.0, 900.0]]])
    gradient = np.random.default_rng(0).normal(size=(1, 3, 3))
    pattern = ops.softmax(scores)
    got = attribution.rules.key_effect(gradient, pattern, scores, exchanged)
    for key in range(3):
        alone = scores.copy()
        alone[..., key] = exchanged[..., key]
        expected = (gradient * (ops.softmax(alone) - pattern)).sum()
        np.testing.assert_allclose(got[key, 0], expected, rtol=1e-12)


numbers = st.floats(-50, 50)


@given(arrays(np.float64, (2, 4, 4), elements=numbers), arrays(np.float64, (2, 4, 4), elements=numbers), st.integers(0))
def test_the_effect_of_a_key_is_that_of_a_softmax_done_again(one: np.ndarray, other: np.ndarray, seed: int) -> None:
    hidden = np.triu(np.ones((4, 4), bool), 1)
    scores, exchanged = np.where(hidden, -np.inf, one), np.where(hidden, -np.inf, other)
    gradient = np.random.default_rng(seed).normal(size=(3, 2, 4, 4))
    pattern = ops.softmax(scores)
    got = attribution.rules.key_effect(gradient, pattern, scores, exchanged)
    for key in range(4):
        alone = scores.copy()
        alone[..., key] = exchanged[..., key]
        expected = (gradient * (ops.softmax(alone) - pattern)).sum(axis=(-2, -1))
        np.testing.assert_allclose(got[:, key], expected, rtol=1e-8, atol=1e-8)


def test_a_model_of_one_layer_has_no_layer_to_drop() -> None:
    model = tiny(0)
    star = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, "atp*", names=["*.attn.z", "*.mlp_out"]).scores
    plain = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, names=["*.attn.z", "*.mlp_out"]).scores
    for name, x in plain.items():
        np.testing.assert_allclose(star[name], x, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", ["atp", "atp*", "relp"])
def test_a_data_set_of_pairs_is_each_of_them(method: str) -> None:
    model, rng = tiny(2), np.random.default_rng(0)
    clean, corrupted = rng.integers(0, 20, (2, 3, 5))
    right, wrong = np.array([1, 2, 3]), np.array([4, 5, 6])
    whole = attribution.nodes(model, clean, corrupted, logit_difference(right, wrong), method)
    each = [
        attribution.nodes(model, clean[i], corrupted[i], logit_difference(int(right[i]), int(wrong[i])), method)
        for i in range(3)
    ]
    for name, x in whole.scores.items():
        alone = np.stack([one.scores[name] for one in each])
        np.testing.assert_allclose(x, alone.mean(0), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(whole.spread[name], alone.std(0), rtol=1e-6, atol=1e-12)
        assert not each[0].spread[name].any()
    np.testing.assert_allclose(whole.clean, [one.clean[0] for one in each])
    np.testing.assert_allclose(whole.corrupted, [one.corrupted[0] for one in each])
    assert whole.stack("mlp.post").shape == (2, 5, 64)


@pytest.mark.parametrize("method", ["atp", "atp*", "relp"])
def test_positions_and_heads_are_summed_within_each_pair(method: str) -> None:
    model, rng = tiny(2), np.random.default_rng(1)
    pairs = [rng.integers(0, 20, (2, length)) for length in (6, 4, 6, 5)]  # taken by length, given back in order
    right, wrong = np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8])
    clean, corrupted = zip(*pairs, strict=True)
    names = ["*.attn.z", "*.attn.pattern"]
    sums = {
        "layer": {"z": lambda x: x.sum(), "pattern": lambda x: x.sum()},
        "head": {"z": lambda x: x.sum(axis=0), "pattern": lambda x: x.sum(axis=(1, 2))},
    }
    each = [
        attribution.nodes(model, one, other, logit_difference(int(a), int(b)), method, names=names)
        for (one, other), a, b in zip(pairs, right, wrong, strict=True)
    ]
    for over, table in sums.items():
        metric = logit_difference(right, wrong)
        found = attribution.nodes(model, list(clean), list(corrupted), metric, method, names=names, over=over)
        for name, x in found.scores.items():
            alone = np.stack([table[name.rsplit(".", 1)[1]](one.scores[name]) for one in each])
            np.testing.assert_allclose(x, alone.mean(0), rtol=1e-8, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(found.spread[name], alone.std(0), rtol=1e-6, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found.clean, [one.clean[0] for one in each])
        np.testing.assert_allclose(found.corrupted, [one.corrupted[0] for one in each])
    by_place = attribution.nodes(model, *pairs[0], METRIC, method, names="*.attn.z", over="head position")
    whole = attribution.nodes(model, *pairs[0], METRIC, method, names="*.attn.z")
    np.testing.assert_array_equal(by_place.stack("z"), whole.stack("z").swapaxes(1, 2))
    by_position = attribution.nodes(model, *pairs[0], METRIC, method, names="*.attn.z", over="position")
    np.testing.assert_allclose(by_position.stack("z"), whole.stack("z").sum(axis=2), rtol=1e-12)


def test_every_metric_with_a_derivative_is_taken() -> None:
    model = tiny()
    reference = model(CLEAN)
    for metric in (cross_entropy(), kl_divergence(reference), log_probability(3)):
        found = attribution.nodes(model, [CLEAN, CORRUPTED], [CORRUPTED, CLEAN], metric, names="embed")
        assert found.scores["embed"].shape == (6,)
        assert found.scores["embed"].any()
        assert found.clean.shape == (2,)


def test_texts_and_begin_of_text() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    metric = logit_difference(" he", " she")
    clean, corrupted = "The boy was sad because", "The girl was sad because"
    plain = attribution.nodes(model, clean, corrupted, metric, names="*.attn.z")
    assert plain.stack("z").shape == (8, 5, 10)
    started = attribution.nodes(model, clean, corrupted, metric, names="*.attn.z", prepend_bos=True)
    by_hand = attribution.nodes(
        model, *([0, *model.tokenizer.encode(text)] for text in (clean, corrupted)), metric, names="*.attn.z"
    )
    found = started.stack("attn.z")
    np.testing.assert_array_equal(found, by_hand.stack("attn.z"))
    # Nothing differs before the word that does, but what BLAS rounds differently for another row of the same product.
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrupted": CORRUPTED[:-1]}, r"equally many tokens, got 6 in \[3, 7, 1, 12, 5, 9\] and 5 in \[3, 2, 1"),
        ({"metric": lambda logits: logits[:, -1, 0]}, r"a metric needs a method value\(logits, ids\)"),
        ({"metric": type("Half", (), {"value": lambda self, logits, ids: logits[:, 0, 0]})()}, "Half has no .gradient"),
        ({"method": "gradient"}, "method must be one of atp, atp\\*, relp, got 'gradient'"),
        ({"over": "token"}, "over must be one of layer, position, head, head position, got 'token'"),
        ({"over": "head"}, "over 'head' needs activations that have heads, such as attn.z, got embed"),
        ({"names": "blocks.0.resid"}, "the nearest is 'blocks.0.resid_pre'"),
        ({"clean": [CLEAN]}, "must both be one prompt or both be a list"),
        (
            {"clean": [CLEAN, CLEAN], "corrupted": [CORRUPTED]},
            "every clean prompt needs its corrupted one, got 2 and 1",
        ),
        ({"clean": [CLEAN, CLEAN[:3]], "corrupted": [CORRUPTED, CORRUPTED[:3]]}, r"must have equally many .* \[3, 6\]"),
        ({"clean": "a text"}, "a text needs a model with a tokenizer; give ids, got 'a text'"),
        ({"clean": np.array([1, 99])}, "between 0 and 18"),
    ],
)
def test_what_can_t_be_is_said_before_anything_runs(change: dict, message: str) -> None:
    model = tiny()
    model.forward = None  # type: ignore[assignment,method-assign]  # whatever runs fails otherwise
    asked = {"clean": CLEAN, "corrupted": CORRUPTED, "metric": METRIC} | change
    with pytest.raises(ValueError, match=message):
        attribution.nodes(model, **asked)


def test_relp_says_where_it_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="0 at 0, got 'sigmoid'"):
        attribution.nodes(tiny(activation_function="sigmoid"), CLEAN, CORRUPTED, METRIC, "relp")
    edited = tiny().with_edits({"blocks.0.mlp.post": np.zeros((1, 6, 64))})
    with pytest.raises(ValueError, match=r"blocks.0.mlp.post can't be edited"):
        attribution.nodes(edited, CLEAN, CORRUPTED, METRIC, "relp")


def test_the_ratio_of_an_activation_at_0_is_its_slope() -> None:
    model = tiny()
    x = np.array([0.0, 1e-9, -1e-9, 2.0])
    np.testing.assert_allclose(
        attribution.rules.ratio(x, model.config), [0.5, 0.5, 0.5, ops.gelu_new(x)[-1] / 2], atol=1e-8
    )


def test_a_stack_says_what_there_is() -> None:
    found = attribution.nodes(tiny(), CLEAN, CORRUPTED, METRIC, names=["*.attn.z", "blocks.1.mlp_out"])
    with pytest.raises(ValueError, match="the nearest that there are is 'mlp_out'"):
        found.stack("mlp_out")
    assert found.stack("attn.hook_z").shape == (2, 6, 2)

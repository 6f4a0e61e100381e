"""Head scores, circuits, lenses, neurons and steering against TransformerLens, NumPy's dense algebra, and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_transformer_lens import CONFIG, as_loaded, golden, processed, under
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from gpt2_np.internals import circuits, heads, lens, logits, neurons, steering
from gpt2_np.session.model import Model

IDS = golden()["ids"][0]


@pytest.mark.parametrize("kind", heads.KINDS)
def test_head_scores_are_transformer_lens_own(kind: str) -> None:
    for measure in ("mul", "abs"):
        ours = heads.head_scores(as_loaded(), golden()["repeated"], kind, measure=measure, exclude_bos=measure == "mul")
        np.testing.assert_allclose(ours, under("head")[f"{kind}.{measure}"], atol=6e-4)  # theirs rounds "abs" to 3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_detection_patterns_by_their_definition(ids: list[int]) -> None:
    T = len(ids)
    for query, key in np.ndindex(T, T):
        earlier = key < query
        assert heads.detection_pattern("previous_token", ids)[query, key] == (key == query - 1)
        assert heads.detection_pattern("duplicate_token", ids)[query, key] == (earlier and ids[key] == ids[query])
        induction = 0 < key <= query and ids[key - 1] == ids[query]
        assert heads.detection_pattern("induction", ids)[query, key] == (induction and key - 1 < query)


def test_mean_score_is_the_attention_at_positions_with_a_target() -> None:
    model, texts = as_loaded(), heads.repeated_random_ids(31, 6, rows=3, start=0)
    pattern = model.run_with_cache(texts, "*.pattern")[1]["pattern", 1]
    for kind in heads.KINDS:
        shares = []
        for row, text in zip(pattern, texts, strict=True):
            wanted = heads.detection_pattern(kind, text)
            shares += [(row[:, query] * wanted[query]).sum(-1) for query in range(len(text)) if wanted[query].any()]
        np.testing.assert_allclose(heads.head_scores(model, texts, kind)[1], np.mean(shares, 0), atol=1e-6)
    assert set(heads.all_head_scores(model, length=40)) == set(heads.KINDS)


def test_circuits_are_the_dense_products() -> None:
    params = processed().params
    block = params.h[1].attn
    q, k, v = (block.c_attn.weight[:, part * 16 + 8 : part * 16 + 16].astype(float) for part in range(3))
    ov, qk = v @ block.c_proj.weight[8:], q @ k.T
    np.testing.assert_allclose(circuits.ov_circuit(params, CONFIG, 1, 1).full(), ov, atol=1e-6)
    np.testing.assert_allclose(circuits.qk_circuit(params, CONFIG, 1, 1).full(), qk, atol=1e-6)
    for score, matrix in (
        (circuits.copying_scores, params.wte @ ov @ params.lm_head.T),
        (circuits.matching_scores, params.wte @ qk @ params.wte.T),
    ):
        values = np.linalg.eigvals(matrix)
        np.testing.assert_allclose(score(params, CONFIG)[1, 1], values.sum().real / np.abs(values).sum(), atol=1e-4)
    u, s, vt = circuits.ov_circuit(params, CONFIG, 1, 1).svd()
    np.testing.assert_allclose(u * s @ vt, ov, atol=1e-6)
    np.testing.assert_allclose(s, np.linalg.svd(ov)[1][:8], atol=1e-6)
    for kind, matrix, far_end in (("OV", ov, params.lm_head), ("QK", qk, params.wte)):
        direction = circuits.singular_directions(params, CONFIG, 1, 1, kind=kind, count=2, tokens=3)[1]
        left, strengths, right = np.linalg.svd(matrix)
        near, far = params.wte @ left[:, 1], far_end @ right[1]
        sign = np.sign(near[np.abs(near).argmax()])
        np.testing.assert_allclose(direction.strength, strengths[1], rtol=1e-6)
        assert direction.tokens_in == np.argsort(-sign * near)[:3].tolist()
        assert direction.tokens_out == np.argsort(-sign * far)[:3].tolist()
    with pytest.raises(ValueError, match="kind must be 'OV' or 'QK', got 'ov'"):
        circuits.singular_directions(params, CONFIG, 1, 1, kind="ov")


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_scores_are_transformer_lens_own(kind: str) -> None:
    ours = circuits.composition_scores(processed().params, CONFIG, kind)
    np.testing.assert_allclose(ours, under("composition")[kind], atol=1e-5)


def test_a_head_that_copies_scores_one() -> None:
    model = as_loaded()
    params, D = model.params, 16
    attn = params.h[0].attn
    weight, rows = attn.c_attn.weight.copy(), attn.c_proj.weight.copy()
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 8)))[0]
    weight[:, 2 * D : 2 * D + 8], rows[:8] = basis, basis.T
    weight[:, 2 * D + 8 :], rows[8:] = basis, -basis.T
    attn = attn._replace(c_attn=attn.c_attn._replace(weight=weight), c_proj=attn.c_proj._replace(weight=rows))
    ln_f = params.ln_f._replace(weight=np.ones(D))
    copying = params._replace(h=(params.h[0]._replace(attn=attn), params.h[1]), ln_f=ln_f)
    np.testing.assert_allclose(circuits.copying_scores(copying, CONFIG)[0], [1, -1], atol=1e-6)


def test_the_logit_lens_ends_in_the_output(small: Path) -> None:
    model, ids = Model.from_pretrained(small), random_ids(1, 9)[0]
    looked = lens.logit_lens(model, ids)
    assert looked.labels == ["0_pre", "1_pre", "2_pre", "final_post"]
    np.testing.assert_allclose(looked.logits[-1], model(ids), atol=1e-5)
    skipped = Model(model.params._replace(h=model.params.h[:2]), replace(model.config, n_layer=2))
    np.testing.assert_allclose(looked.logits[2], skipped(ids), atol=1e-5)  # the same model without its last layer
    best, p = looked.top(3)
    assert best.shape == p.shape == (4, 9, 3)
    np.testing.assert_array_equal(best[-1, :, 0], model(ids).argmax(-1))
    np.testing.assert_allclose(looked.divergence()[-1], 0, atol=1e-12)
    assert (looked.divergence()[:-1] > 0).all()


def test_the_tuned_lens_is_the_least_squares_solution(small: Path, tmp_path: Path) -> None:
    model, texts = Model.from_pretrained(small), list(random_ids(30, 20))
    tuned = lens.train_tuned_lens(model, iter(texts), ridge=0)
    _, cache = model.run_with_cache(np.stack(texts))
    x = np.pad(cache["resid_pre", 1][:, 1:].reshape(-1, 48).astype(float), [(0, 0), (0, 1)], constant_values=1)
    y = cache["resid_post", 2][:, 1:].reshape(-1, 48).astype(float)
    solved = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(tuned.weight[1], solved[:48], atol=1e-4)
    np.testing.assert_allclose(tuned.bias[1], solved[48], atol=1e-4)
    ids = random_ids(1, 20, seed=9)[0]
    better, plain = tuned(model, ids).divergence()[:-1, 1:], lens.logit_lens(model, ids).divergence()[:-1, 1:]
    assert (better.mean(1) < plain.mean(1)).all()
    tuned.save(tmp_path / "lens.safetensors")
    again = lens.TunedLens.load(tmp_path / "lens.safetensors")
    np.testing.assert_array_equal(again(model, ids).logits, tuned(model, ids).logits)
    (tmp_path / "lens.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="is not a tuned lens"):
        lens.TunedLens.load(tmp_path / "lens.safetensors")
    whole = {"weight": tuned.weight, "bias": tuned.bias}
    for spoilt, why in [
        ({"weight": tuned.weight}, "it has no tensor 'bias'"),
        (whole | {"bias": tuned.bias * np.float32("nan")}, "it must be finite, got NaN or infinity"),
        (whole | {"bias": tuned.bias.astype(np.int32)}, "bias must be F32, F16, BF16 or F64, got I32"),
        (whole | {"bias": tuned.bias[:, 1:]}, r"its shapes are \(3, 48, 48\) and \(3, 47\)"),
    ]:
        save_file({name: np.ascontiguousarray(one) for name, one in spoilt.items()}, tmp_path / "lens.safetensors")
        with pytest.raises(ValueError, match=rf"lens\.safetensors is not a tuned lens: {why}$"):
            lens.TunedLens.load(tmp_path / "lens.safetensors")
    for kind in (torch.bfloat16, torch.float8_e4m3fn):
        stored = {name: torch.from_numpy(one).to(kind) for name, one in whole.items()}
        save_torch(stored, tmp_path / "lens.safetensors")
        if kind is torch.bfloat16:
            read = lens.TunedLens.load(tmp_path / "lens.safetensors")
            np.testing.assert_array_equal(read.weight, stored["weight"].float().numpy())
            continue
        with pytest.raises(ValueError, match=r"is not a tuned lens: (weight|bias) must be F32, .*, got F8_E4M3$"):
            lens.TunedLens.load(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match="was tuned for 3 layers of width 48, got a model with 2 of 16"):
        again(as_loaded(), IDS)


def test_a_heavy_ridge_gives_the_logit_lens(small: Path) -> None:
    model, ids = Model.from_pretrained(small), random_ids(1, 9)[0]
    tuned = lens.train_tuned_lens(model, [ids], ridge=1e12)
    np.testing.assert_allclose(tuned.weight, np.broadcast_to(np.eye(48), (3, 48, 48)), atol=1e-6)


def test_dashboards_find_what_a_full_scan_finds() -> None:
    model, texts = as_loaded(), list(random_ids(9, 12, 31))
    chosen = [(0, 5), (1, 63)]
    post = model.run_with_cache(np.stack(texts))[1]
    for board, (layer, neuron) in zip(
        neurons.dashboards(model, iter(texts), chosen, examples=4, context=2), chosen, strict=True
    ):
        values = post["post", layer][:, :, neuron]
        order = np.argsort(-values.max(1))[:4]
        assert [example.text for example in board.examples] == order.tolist()
        for example in board.examples:
            row = values[example.text]
            assert example.position == row.argmax()
            np.testing.assert_allclose(example.value, row.max(), rtol=1e-5)
            end = example.start + len(example.ids)
            assert example.ids == texts[example.text][example.start : end].tolist()
            np.testing.assert_allclose(example.values, row[example.start : end], atol=1e-6)
        assert board.histogram.sum() == values.size
        np.testing.assert_allclose(board.share_active, (values > 0).mean())
        effect = model.params.lm_head @ (model.params.ln_f.weight * model.params.h[layer].mlp.c_proj.weight[neuron])
        assert board.raises[0] == effect.argmax()
        assert board.lowers[0] == effect.argmin()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=300), st.integers(1, 12))
def test_both_ends_are_those_of_a_sort(values: list[int], count: int) -> None:
    effect = np.array(values, np.float32)
    order = np.argsort(-effect, kind="stable")
    highest, lowest = neurons.ends(effect, count)
    assert highest.tolist() == order[:count].tolist()
    assert lowest.tolist() == order[::-1][:count].tolist()


@given(st.integers(0, 2**32 - 1))
def test_divergences_are_those_in_float64(seed: int) -> None:
    last, other = np.random.default_rng(seed).normal(0, 3, (2, 5, 40)).astype(np.float32)
    p, q = lens.log_softmax(last), lens.log_softmax(other)
    from_last, rows = logits.Divergence(last), np.array([3, 0, 4, 1, 2, 3])
    right = (np.exp(p) * (p - q)).sum(-1)[rows]
    np.testing.assert_allclose(from_last(other[rows], rows), right, rtol=1e-5, atol=1e-6)
    assert not from_last(last, np.arange(5)).any()


def test_a_place_where_a_neuron_does_not_fire_is_no_example() -> None:
    model, texts = as_loaded(), list(random_ids(9, 3, 31))
    post = model.run_with_cache(np.stack(texts))[1]
    most = {(layer, neuron): post["post", layer][:, :, neuron].max(1) for layer in (0, 1) for neuron in range(64)}
    chosen = [place for place, values in most.items() if 0 < (values > 0).sum() < len(texts)][:3]
    assert chosen
    for place, board in zip(chosen, neurons.dashboards(model, texts, chosen, examples=9), strict=True):
        # In order but for what rounding may turn around.
        assert {one.text for one in board.examples} == set(np.flatnonzero(most[place] > 0).tolist())
        assert (np.diff([most[place][one.text] for one in board.examples]) <= 1e-6).all()


def test_steering_adds_the_difference_of_means() -> None:
    model, texts = as_loaded(), random_ids(5, 6, 31)
    vector = steering.steering_vector(model, texts[:2], texts[2:], layer=1)
    stream = model.run_with_cache(texts)[1]["resid_pre", 1]
    np.testing.assert_allclose(vector, stream[:2, -1].mean(0) - stream[2:, -1].mean(0), atol=1e-6)
    whole = steering.steering_vector(model, texts[:2], texts[2:], layer=1, position=None)
    np.testing.assert_allclose(whole, stream[:2].mean((0, 1)) - stream[2:].mean((0, 1)), atol=1e-6)
    steered = steering.steer(model, vector, 1, scale=2.0, positions=slice(3, None))
    _, cache = steered.run_with_edits(IDS, {}, None)
    plain = model.run_with_cache(IDS)[1]["resid_pre", 1]
    np.testing.assert_allclose(cache["resid_pre", 1][0, 3:], plain[0, 3:] + 2 * vector, atol=1e-5)
    np.testing.assert_array_equal(cache["resid_pre", 1][0, :3], plain[0, :3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: heads.head_scores(m, IDS, "copy"), "kind must be one of previous_token, .* got 'copy'"),
        (lambda m: heads.head_scores(m, IDS, "induction", measure="max"), "measure must be one of mean, mul, abs, got"),
        (lambda m: heads.repeated_random_ids(5, 1), "length must be at least 2, got 1"),
        (lambda m: circuits.ov_circuit(m.params, CONFIG, 2, 0), "layer must be between 0 and 1, got 2"),
        (lambda m: circuits.composition_scores(m.params, CONFIG, "q"), "kind must be 'Q', 'K' or 'V', got 'q'"),
        (lambda m: lens.logit_lens(m, golden()["ids"]), "a lens looks at one prompt, got 2 rows"),
        (lambda m: lens.train_tuned_lens(m, [[1]]), "at least 2 positions"),
        (lambda m: lens.train_tuned_lens(m, [], ridge=-1), "ridge must be between 0 and 1e\\+12, got -1"),
        (lambda m: neurons.dashboards(m, [IDS], [(0, 64)]), r"neurons below 64, got \(0, 64\)"),
        (lambda m: neurons.dashboards(m, [], [(0, 1)]), "at least one text, got none"),
        (lambda m: steering.steering_vector(m, [], [IDS], 1), "texts on both sides, got 0 and 1"),
        (lambda m: steering.steering_vector(m, [IDS], [IDS], 2), "layer must be between 0 and 1, got 2"),
        (lambda m: steering.steering_vector(m, [IDS], [IDS], 1, position=8), "position must be between -8 and 7"),
        (lambda m: steering.steer(m, np.zeros(15), 1), r"must have the width 16, got shape \(15,\)"),
    ],
)
def test_mistakes_are_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(as_loaded())
    assert "\n" not in str(caught.value)

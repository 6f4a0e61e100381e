"""Dictionaries in a model: what SAELens's HookedSAETransformer, its run_evals and SAEBench's find with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from dictionary_folders import GOLDEN, random_dictionary
from golden_transformer_lens import as_loaded
from safetensors.numpy import load_file, save_file

from gpt2_np.gradients import logit_difference
from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries import Dictionary, places, resumed
from gpt2_np.internals.dictionaries.evaluation import batches, evaluate
from gpt2_np.internals.processing import center_writing_weights
from gpt2_np.model.edits import Part
from gpt2_np.model.taps import BLOCK_POINTS
from gpt2_np.session.model import Model

TOLD = json.loads((GOLDEN / "dictionary_runs.json").read_text())
TENSORS = load_file(GOLDEN / "dictionary_runs.safetensors")
NAMES = list(TOLD["dictionaries"])
EVALUATED = [name for name in NAMES if name != "transcoder"]


@pytest.fixture(scope="module")
def model() -> Model:
    return as_loaded()


def loaded(name: str, folder: Path) -> Dictionary:
    (folder / "cfg.json").write_text(json.dumps(TOLD["dictionaries"][name]["cfg"]))
    weights = {key.partition("/")[2]: x for key, x in TENSORS.items() if key.startswith(f"{name}/")}
    save_file(weights, folder / "sae_weights.safetensors")
    return dictionaries.load(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one_head"])  # SAELens's add_sae knows none
@pytest.mark.parametrize("how", ["plain", "error", "silenced"])
def test_spliced_runs_and_their_gradients_are_those_of_saelens(
    model: Model, name: str, how: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"ablate": TOLD["silent"]} if how == "silenced" else {}
    spliced = dictionaries.spliced(model, loaded(name, tmp_path), error=how != "plain", **changes)
    ids = TENSORS["ids"][:2]
    run = spliced.run_with_gradients(ids, logit_difference(5, 9), "embed")
    np.testing.assert_allclose(run.logits, TENSORS[f"{name}:{how}.logits"], atol=1e-4)
    np.testing.assert_allclose(run.grads["embed"], TENSORS[f"{name}:{how}.gradient"], atol=1e-4)
    np.testing.assert_allclose(spliced(ids), run.logits, atol=1e-5)


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluations_are_those_of_saelens_and_saebench(model: Model, name: str, tmp_path: Path) -> None:
    told = TOLD["dictionaries"][name]
    found = evaluate(model, loaded(name, tmp_path), TENSORS["ids"], exclude=[0], batch=4)
    ours = found.as_json()
    for group, values in told["saelens"].items():
        if group != "token_stats":  # SAELens counts the excluded ones too
            for metric, value in values.items():
                assert ours[group][metric] == pytest.approx(value, rel=2e-4, abs=1e-5), metric
    np.testing.assert_allclose(found.density, told["density"], atol=1e-6)
    np.testing.assert_allclose(found.consistency, np.nan_to_num(told["consistency"]), rtol=1e-5)
    for metric, value in told.get("saebench", {}).items():
        group = "saebench" if metric in ("explained_variance", "mse") else None
        there = {key: one for some in ours.values() for key, one in some.items()} if group is None else ours[group]
        assert there[metric] == pytest.approx(value, rel=2e-4, abs=1e-5), metric


def test_kernels_find_the_same(model: Model, tmp_path: Path) -> None:
    dictionary = loaded("mlp_out", tmp_path)
    compiled = Model(model.params, model.config, backend="numba")
    one, other = (evaluate(some, dictionary, TENSORS["ids"], exclude=[0], batch=4) for some in (model, compiled))
    for group, values in one.as_json().items():
        assert other.as_json()[group] == pytest.approx(values, rel=1e-4, abs=1e-5), group


def test_an_evaluation_tells_what_it_needs(model: Model, tmp_path: Path) -> None:
    dictionary = loaded("resid_pre", tmp_path)
    with pytest.raises(ValueError, match="at least 2 tokens that count, got none"):
        evaluate(model, dictionary, [[0, 0], [5]], exclude=[0])
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        evaluate(model, dictionary, [[1, 2]], batch=0)
    shapes = [some.shape for some in batches([[1, 2], [3, 4], [5, 6], [1], [1, 2, 3], [1, 2]], 2)]
    assert shapes == [(2, 2), (1, 2), (1, 3), (1, 2)]


POINTS = [point for point in BLOCK_POINTS if point != "attn.result" and not point.endswith((".scale", ".in"))]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_resumes_is_the_edited_run(model: Model, point: str, backend: str) -> None:
    """What lies before the edit isn't computed again, and every logit is as if it were."""
    name, ids = f"blocks.0.{point}", np.asarray(TENSORS["ids"][:2])
    model = Model(model.params, model.config, backend=backend)
    _, plain = resumed.run(model, ids, [*resumed.needed(name), name])
    value = plain[name][::-1].copy()  # the other text's
    expected, _ = model.run_with_edits(ids, {name: value})
    given = {one: plain[one] for one in resumed.needed(name)}
    found = resumed.logits_with(model, ids, name, value, given)
    assert np.abs(found - model(ids)).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 if backend == "numba" else 0)


def test_a_model_with_edits_is_evaluated_as_it_is(model: Model, tmp_path: Path) -> None:
    dictionary = loaded("mlp_out", tmp_path)
    edited = model.with_edits({"blocks.0.resid_pre": lambda x: x * 1.5})
    params = model.params._replace(wte=model.params.wte * np.float32(1.5), wpe=model.params.wpe * np.float32(1.5))
    params = params._replace(lm_head=model.params.lm_head)
    expected = evaluate(model.with_params(params), dictionary, TENSORS["ids"])
    found = evaluate(edited, dictionary, TENSORS["ids"])
    assert found.loss_spliced == pytest.approx(expected.loss_spliced, rel=1e-4)
    assert found.loss_ablated == pytest.approx(expected.loss_ablated, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_with_its_error_a_splice_changes_nothing(model: Model, name: str, tmp_path: Path) -> None:
    dictionary = loaded(name, tmp_path)
    ids = TENSORS["ids"][:3]
    np.testing.assert_array_equal(dictionaries.spliced(model, dictionary, error=True)(ids), model(ids))
    assert np.abs(dictionaries.spliced(model, dictionary)(ids) - model(ids)).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_features_are_scaled_added_and_set(model: Model, name: str, tmp_path: Path) -> None:
    dictionary, ids = loaded(name, tmp_path), TENSORS["ids"][:2]
    reads, writes = places.reads(dictionary), places.writes(dictionary)
    cache = model.run_with_cache(ids, [reads, writes])[1]
    vectors, old = places.vectors(dictionary, cache[reads]), places.picked(dictionary, cache[writes])
    features, out = dictionary.both(vectors)
    changed = features.copy()
    changed[..., 1], changed[..., 5], changed[..., 9] = changed[..., 1] * 3, changed[..., 5] + 2, 4
    words: dict[str, Any] = {"scale": {1: 3.0}, "add": {5: 2.0}, "value": {9: 4.0}}
    moved = dictionary.decode(changed, vectors) - dictionary.decode(features, vectors)
    for error, expected in ((True, old + moved), (False, out + moved)):
        spliced = dictionaries.spliced(model, dictionary, error=error, **words)
        found = places.picked(dictionary, spliced.run_with_cache(ids, writes)[1][writes])
        np.testing.assert_allclose(found, expected, atol=2e-5)
        some = dictionaries.spliced(model, dictionary, error=error, positions=[2, 3], **words)
        found = places.picked(dictionary, some.run_with_cache(ids, writes)[1][writes])
        expected = np.where(np.isin(np.arange(12), [2, 3])[:, None], expected, old)
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["resid_pre", "transcoder"])
def test_a_spliced_model_writes_what_it_would_read(model: Model, name: str, tmp_path: Path) -> None:
    spliced = dictionaries.spliced(model, loaded(name, tmp_path), value={4: 3.0}, positions=slice(2, None))
    session = spliced.start()
    logits = [session.feed([TENSORS["ids"][0, :4].tolist()])]
    logits += [session.feed([[int(token)]]) for token in TENSORS["ids"][0, 4:9]]
    np.testing.assert_allclose(np.concatenate(logits), spliced(TENSORS["ids"][0, :9])[3:], atol=1e-4)


def test_an_edit_by_name_is_the_same(model: Model, tmp_path: Path) -> None:
    dictionary, ids = loaded("resid_pre", tmp_path), TENSORS["ids"][:2]
    by_name = model.with_edits({dictionary.hook_name: dictionary.splice(ablate=[3])})
    np.testing.assert_array_equal(by_name(ids), dictionaries.spliced(model, dictionary, ablate=[3])(ids))
    assert isinstance(dictionary.splice(positions=[1]).change, Part)


def test_a_dictionary_of_centred_weights_reads_the_stream_without_its_mean(model: Model, tmp_path: Path) -> None:
    plain, ids = loaded("resid_pre", tmp_path), TENSORS["ids"][:2]
    asks = MappingProxyType(
        dict(plain.config.metadata) | {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    )
    asking = Dictionary(replace(plain.config, metadata=asks), plain.tensors)
    centred = model.with_params(center_writing_weights(model.params))
    for error in (False, True):
        words: dict[str, Any] = {"error": error, "ablate": [3, 7]}
        one, other = dictionaries.spliced(model, asking, **words), dictionaries.spliced(centred, plain, **words)
        np.testing.assert_allclose(one(ids), other(ids), atol=1e-4)
    runs = [
        dictionaries.spliced(m, d).run_with_gradients(ids, logit_difference(5, 9), "blocks.1.resid_pre")
        for m, d in ((model, asking), (centred, plain))
    ]
    grads = [run.grads["blocks.1.resid_pre"] for run in runs]
    np.testing.assert_allclose(*(one - one.mean(axis=-1, keepdims=True) for one in grads), atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hook_name": "blocks.7.hook_resid_pre"}, "which the model doesn't have; the nearest is 'blocks.1.resid_pre'"),
        ({"hook_name": "blocks.1.hook_mlp_post"}, "nearest is"),
        ({"hook_name": "blocks.1.mlp.hook_post"}, "reads 12 numbers at blocks.1.mlp.post, where the model has 64"),
        ({"hook_name": "blocks.1.attn.hook_z", "hook_head_index": 2}, "hook_head_index must be below 2, got 2"),
        ({"hook_name": "blocks.1.attn.hook_z", "hook_head_index": 1}, "where the model has 8"),
        ({"hook_name": "blocks.1.attn.hook_z"}, "where the model has 16"),
        ({"hook_name": "blocks.1.attn.hook_pattern"}, "where the model has another number of"),
    ],
)
def test_a_model_without_the_place_is_refused(model: Model, fields: dict[str, Any], message: str) -> None:
    base = {"architecture": "standard", "d_in": 12, "d_sae": 40, "d_out": 12, "hook_name_out": fields["hook_name"]}
    with pytest.raises(ValueError, match=message):
        dictionaries.spliced(model, random_dictionary(base | fields))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ablate": [48]}, "a feature must be a whole number between 0 and 47, got 48"),
        ({"ablate": [True]}, "a feature must be a whole number"),
        ({"ablate": [3], "add": {3: 1.0}}, "can be changed in one way, got 3 twice"),
        ({"value": {3: float("nan")}}, "must be finite, got 0.0, nan for 3"),
    ],
)
def test_features_that_are_not_there_are_refused(
    model: Model, words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        dictionaries.spliced(model, loaded("resid_pre", tmp_path), **words)


def test_a_transcoder_is_no_edit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dictionaries.spliced\(model, transcoder\) puts it in"):
        dictionaries.splice(loaded("transcoder", tmp_path))

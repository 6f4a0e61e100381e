"""What features do and where they fire, against the plainest way to compute the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dictionary_folders import random_dictionary
from golden_transformer_lens import as_loaded
from hypothesis import given
from hypothesis import strategies as st

from gpt2_np.gradients import logit_difference
from gpt2_np.internals import dictionaries
from gpt2_np.internals.capture import capture_corpus
from gpt2_np.internals.dictionaries import Dictionary, places
from gpt2_np.internals.dictionaries.dashboards import dashboards
from gpt2_np.internals.dictionaries.effects import attribute, direct, logit_effects
from gpt2_np.internals.dictionaries.firing import fires
from gpt2_np.internals.dictionaries.histograms import BINS, Histograms
from gpt2_np.session.model import Model

IDS = np.random.default_rng(5).integers(1, 31, 12)
PLACES = {
    "resid_pre": ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre", 16, None),
    "z": ("blocks.1.attn.hook_z", "blocks.1.attn.hook_z", 16, None),
    "one_head": ("blocks.1.attn.hook_z", "blocks.1.attn.hook_z", 8, 1),
    "post": ("blocks.0.mlp.hook_post", "blocks.0.mlp.hook_post", 64, None),
    "transcoder": ("blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out", 16, None),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return as_loaded()


def placed(name: str, architecture: str = "jumprelu", **more: Any) -> Dictionary:
    hook, hook_out, width, head = PLACES[name]
    if name == "transcoder":
        architecture, more = "skip_transcoder", more | {"apply_b_dec_to_input": False}
    shape = {"architecture": architecture, "d_in": width, "d_sae": 40, "d_out": 16 if hook != hook_out else width}
    return random_dictionary(
        shape | {"hook_name": hook, "hook_name_out": hook_out, "hook_head_index": head} | more, seed=3
    )


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("normalises", ["none", "layer_norm", "constant_norm_rescale"])
def test_attribution_adds_up_and_is_the_derivative(model: Model, name: str, normalises: str) -> None:
    dictionary, metric = placed(name, normalize_activations=normalises), logit_difference(4, 9)
    found = attribute(model, dictionary, IDS, metric)
    writes = places.writes(dictionary)
    run = model.run_with_gradients(IDS, metric, writes)
    whole = places.picked(dictionary, run.cache[writes] * run.grads[writes]).sum(axis=-1)[0]
    np.testing.assert_allclose(found.scores.sum(axis=1) + found.error + found.bias, whole, atol=1e-4)
    (position, feature, score), *others = found.top(8)
    assert len(others) == 7
    moved = []
    for factor in (1.001, 0.999):
        some = dictionaries.spliced(model, dictionary, error=True, positions=[position], scale={feature: factor})
        moved.append(float(metric(some.run_with_edits(IDS[None], {})[0])[0]))
    assert (moved[0] - moved[1]) / 0.002 == pytest.approx(score, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("name", ["resid_pre", "z", "one_head", "post", "transcoder"])
def test_direct_effects_are_what_the_logit_loses_with_the_norm_and_later_layers_held(model: Model, name: str) -> None:
    dictionary = placed(name, normalize_activations="layer_norm" if name == "resid_pre" else "none")
    found = direct(model, dictionary, IDS, 4, 9, position=7)
    assert found.features.sum() + found.rest == pytest.approx(found.logit)
    feature = int(np.abs(found.features).argmax())
    reads, writes = places.reads(dictionary), places.writes(dictionary)
    # The stream at the end without the feature, all that was added after it kept, and the norm's own scale.
    names = [reads, writes, "blocks.1.resid_post", "ln_final.scale", "blocks.1.attn_out"]
    cache = model.run_with_cache(IDS, names)[1]
    silent = dictionaries.spliced(model, dictionary, error=True, ablate=[feature], positions=[7])
    without = silent.run_with_cache(IDS, [*names, "blocks.0.mlp_out"])[1]
    p = model.params
    if name in ("z", "one_head"):
        lost = (cache["blocks.1.attn_out"] - without["blocks.1.attn_out"])[0, 7]
    elif name == "post":
        lost = (model.run_with_cache(IDS, "blocks.0.mlp_out")[1]["blocks.0.mlp_out"] - without["blocks.0.mlp_out"])[
            0, 7
        ]
    else:
        lost = (cache[writes] - without[writes])[0, 7]
    read = (p.wte[4] - p.wte[9]) * p.ln_f.weight
    expected = (lost - lost.mean()) @ read / cache["ln_final.scale"][0, 7, 0]
    assert found.features[feature] == pytest.approx(float(expected), rel=1e-3)
    if name != "resid_pre":  # which is in its own units
        unit = logit_effects(model, dictionary, [feature])[0]
        fired = fires(model, dictionary, IDS).features[7, feature]
        scale = cache["ln_final.scale"][0, 7, 0]
        assert (unit[4] - unit[9]) * fired / scale == pytest.approx(found.features[feature], rel=1e-3)


def test_queries_have_no_direct_effect(model: Model) -> None:
    shape = {"architecture": "standard", "d_in": 8, "d_sae": 20, "d_out": 8, "hook_head_index": 1}
    dictionary = random_dictionary(
        shape | {"hook_name": "blocks.0.attn.hook_q", "hook_name_out": "blocks.0.attn.hook_q"}
    )
    with pytest.raises(ValueError, match="have no direct effect on the logits"):
        direct(model, dictionary, IDS, 1)
    assert dashboards(model, dictionary, [IDS], [3])[0].raises == []


def test_what_fires_at_a_token_and_most(model: Model) -> None:
    dictionary = placed("resid_pre", "topk", k=5)
    found = fires(model, dictionary, IDS)
    x = model.run_with_cache(IDS, "blocks.1.resid_pre")[1]["blocks.1.resid_pre"][0]
    np.testing.assert_allclose(found.features, dictionary.encode(x), atol=1e-6)
    numbers, values = found.at(3, 2)
    np.testing.assert_array_equal(numbers, np.argsort(-found.features[3])[:2])
    np.testing.assert_array_equal(values, found.features[3, numbers])
    numbers, values = found.most(4)
    np.testing.assert_array_equal(values, np.sort(found.features[1:].max(axis=0))[::-1][:4])
    error = ((x - dictionary.reconstruct(x)) ** 2).sum(-1) / ((x - dictionary.tensors["b_dec"]) ** 2).sum(-1)
    np.testing.assert_allclose(found.missed, error, rtol=1e-4)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        found.at(3, 0)


def test_dashboards_are_what_a_whole_table_says(model: Model) -> None:
    dictionary, random = placed("resid_pre", "topk", k=5), np.random.default_rng(8)
    texts = [random.integers(0, 31, length).tolist() for length in (12, 12, 12, 9, 7, 7, 16)]
    boards = dashboards(model, dictionary, iter(texts), examples=3, context=2, words=4, exclude=[0], batch=2)
    table = [fires(model, dictionary, text).features for text in texts]
    counted = [np.array(text) != 0 for text in texts]
    whole = np.concatenate([some[mask] for some, mask in zip(table, counted, strict=True)])
    assert [board.feature for board in boards] == list(range(40))
    for board in boards:
        values = whole[:, board.feature]
        assert board.tokens == len(values)
        assert board.zeros == (values == 0).sum()
        assert board.density == pytest.approx((values > 0).mean())
        assert board.zeros + board.histogram.sum() == board.tokens
        assert board.edges[-1] >= values.max()
        for count, low, high in zip(board.histogram, board.edges[:-1], board.edges[1:], strict=True):
            assert count == ((values > low) & (values <= high)).sum()
        peaks = [(some[:, board.feature] * mask).max() for some, mask in zip(table, counted, strict=True)]
        order = [text for text in np.argsort(-np.array(peaks), kind="stable") if peaks[text] > 0][:3]
        assert [example.text for example in board.examples] == order
        for example in board.examples:
            there = texts[example.text][example.start :][: len(example.ids)]
            assert example.ids == there
            assert example.value == pytest.approx(peaks[example.text], rel=1e-5)
            assert example.values[example.position - example.start] == example.value
        effects = logit_effects(model, dictionary, [board.feature])[0]
        assert board.raises == np.argsort(-effects)[:4].tolist()
        assert board.lowers == np.argsort(effects)[:4].tolist()
    some = dashboards(model, dictionary, texts, [7, 3], examples=3, context=2, words=4, exclude=[0], batch=2)
    for board in some:
        assert board.examples == pytest.approx(boards[board.feature].examples)
        np.testing.assert_array_equal(board.histogram, boards[board.feature].histogram)


def test_dashboards_of_a_capture_are_those_of_its_texts(model: Model, tmp_path: Path) -> None:
    dictionary, random = placed("z", "topk", k=5), np.random.default_rng(9)
    texts = [random.integers(0, 31, 9).tolist() for _ in range(5)]
    captured = capture_corpus(model, texts, "blocks.1.attn.z", tmp_path)
    one, other = (dashboards(model, dictionary, some, examples=3, batch=1) for some in (texts, captured))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.histogram, b.histogram)
        assert [(x.text, x.position) for x in a.examples] == [(x.text, x.position) for x in b.examples]


def test_dashboards_tell_what_they_need(model: Model) -> None:
    dictionary = placed("resid_pre")
    for words, message in (
        ({"features": [40]}, "a feature must be a whole number between 0 and 39, got 40"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
        ({"exclude": IDS.tolist()}, "at least one token that counts, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            dashboards(model, dictionary, [IDS.tolist()], **words)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.sampled_from([0.0, 1e-30, 0.3, 0.5, 1.0, 1.1, 2.0, 7.5, 1e9]), min_size=1), min_size=1))
def test_a_histogram_counts_all_that_came_whatever_the_order(parts: list[list[float]]) -> None:
    histograms = Histograms(1)
    for part in parts:
        histograms.add(np.array(part, np.float64)[:, None])
    values, edges = np.concatenate(parts), histograms.edges(0)
    assert histograms.zeros[0] == (values == 0).sum()
    assert histograms.counts[0].sum() == (values > 0).sum()
    assert len(edges) == BINS + 1
    expected = [((values > low) & (values <= high)).sum() for low, high in pairwise(edges)]
    assert histograms.counts[0].tolist() == expected

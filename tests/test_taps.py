"""Activation points against TransformerLens and transformers; selection, capture, and that nothing leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_transformer_lens import CONFIG, as_loaded, golden, processed, under
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids, reference_model

from gpt2_np.model.cache import KVCache
from gpt2_np.model.taps import Capture, Recording, canonical, points, select, sizes
from gpt2_np.session.model import Model

# What TransformerLens hands to queries, keys and values apart is one array here: blocks.0.ln1.out.
INNER = ("attn.q.hook_in", "attn.k.hook_in", "attn.v.hook_in")


def test_every_activation_is_transformer_lens_own() -> None:
    logits, ours = as_loaded().run_with_cache(golden()["ids"])
    theirs = under("cache")
    np.testing.assert_allclose(logits, theirs.pop("logits"), atol=2e-5)
    compared = set()
    for name, value in theirs.items():
        if name.endswith(INNER):
            continue
        np.testing.assert_allclose(ours[name], value, atol=2e-5, err_msg=name)
        compared.add(canonical(name))
    assert compared == set(select(None, CONFIG))


def test_every_activation_after_weight_processing() -> None:
    ours = processed().run_with_cache(golden()["ids"])[1]
    theirs = under("processed")
    for name, value in theirs.items():
        # The final norm's bias, which TransformerLens adds behind the unembedding, stays in front of it here.
        if name != "logits" and not name.endswith(INNER) and canonical(name) not in ("ln_final.out", "unembed"):
            np.testing.assert_allclose(ours[name], value, atol=3e-5, err_msg=name)
    np.testing.assert_allclose(ours["unembed"], theirs["logits"] - theirs["logits"].mean(-1, keepdims=True), atol=3e-5)


def test_hidden_states_and_attentions_are_transformers_own(small: Path) -> None:
    reference = reference_model(attn_implementation="eager")
    ids = random_ids(2, 17)
    with torch.inference_mode():
        theirs = reference(torch.tensor(ids), output_hidden_states=True, output_attentions=True)
    cache = Model.from_pretrained(small).run_with_cache(ids)[1]
    states = [*cache.stack_activation("resid_pre"), cache["ln_final.out"]]
    for ours, state in zip(states, theirs.hidden_states, strict=True):
        np.testing.assert_allclose(ours, state.numpy(), atol=2e-5)
    for ours, attention in zip(cache.stack_activation("pattern"), theirs.attentions, strict=True):
        np.testing.assert_allclose(ours, attention.numpy(), atol=1e-5)


def test_shapes_are_what_the_table_says(small: Path) -> None:
    model = Model.from_pretrained(small)
    _, cache = model.run_with_cache(random_ids(2, 9), "*")
    known = points(model.config)
    assert list(cache) == list(known)
    letters = sizes(model.config) | {"B": 2, "T": 9, "S": 9}
    for name, array in cache.items():
        assert array.shape == tuple(letters[letter] for letter in known[name].split()), name
        assert array.dtype == np.float32, name


@given(st.sets(st.sampled_from(sorted(points(CONFIG))), min_size=1))
def test_capturing_any_set_of_points_leaves_the_logits_bit_identical(names: set[str]) -> None:
    model, ids = as_loaded(), golden()["ids"]
    logits, cache = model.run_with_cache(ids, names)
    np.testing.assert_array_equal(logits, model(ids))
    assert set(cache) == names


def test_names_and_patterns() -> None:
    assert select("blocks.0.attn.hook_pattern", CONFIG) == ["blocks.0.attn.pattern"]
    assert select(["blocks.*.mlp.hook_post"], CONFIG) == ["blocks.0.mlp.post", "blocks.1.mlp.post"]
    assert select("blocks.1.hook_out", CONFIG) == ["blocks.1.resid_post"]
    assert "blocks.0.attn.result" not in select(None, CONFIG)
    with pytest.raises(ValueError, match=r"no activation is named 'blocks.0.attn.patern'; the nearest is 'blocks.0"):
        select("blocks.0.attn.patern", CONFIG)
    with pytest.raises(ValueError, match=r"no activation is named 'blocks.7.resid_pre'"):
        select(["embed", "blocks.7.resid_pre"], CONFIG)


def test_captured_arrays_are_read_only_and_one_run_leaves_nothing_in_the_next() -> None:
    model, ids = as_loaded(), golden()["ids"]
    before = model(ids)
    _, cache = model.run_with_edits(ids, {"*.attn.z": lambda z: 0 * z, "embed": lambda x: x + 1}, None)
    assert not cache["z", 1].any()
    with pytest.raises(ValueError, match="read-only"):
        cache["resid_pre", 0][0] = 0
    np.testing.assert_array_equal(model(ids), before)


def test_unwatched_points_are_never_computed() -> None:
    passed = []

    class Listening(Capture):
        def __call__(self, name, x):
            passed.append(name)
            return super().__call__(name, x)

    as_loaded().forward(golden()["ids"], tap=Listening(["blocks.0.attn.z"]))
    assert "blocks.0.attn.z" in passed
    assert not [name for name in passed if name.endswith(("pattern", "attn_scores", "scale", "result"))]


def test_a_recording_of_many_passes_is_the_capture_of_one() -> None:
    model, ids = as_loaded(), golden()["ids"]
    _, whole = model.run_with_cache(ids, "*")
    recording = Recording(points(CONFIG), CONFIG)
    session = model.start(tap=recording)
    for start, end in ((0, 3), (3, 4), (4, 8)):
        session.feed_all(ids[:, start:end])
    for name, array in recording.values.items():
        np.testing.assert_allclose(array, whole[name], atol=1e-5, err_msg=name)


def test_taps_see_a_cache_of_rows_of_different_lengths() -> None:
    model, ids = as_loaded(), golden()["ids"]
    cache = KVCache(CONFIG, 2, 8)
    model.forward(ids[:1, :3], cache=cache.row(0))
    capture = Capture(["blocks.1.attn.pattern"])
    model.forward(ids[:, 3:5], cache=cache, tap=capture)
    pattern = capture.values["blocks.1.attn.pattern"]
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-6)
    assert pattern.shape == (2, 2, 2, 5)
    assert pattern[0, :, 0, 3].all()
    assert not pattern[1, :, :, 2:].any()

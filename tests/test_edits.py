"""Edits: of whole activations, of positions, of heads; of a run, and of a text while it is generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_transformer_lens import CONFIG, as_loaded, golden, under
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids, reference_logits, reference_model

from gpt2_np.model.edits import Part
from gpt2_np.model.taps import Capture, points, select
from gpt2_np.session.model import Model
from gpt2_np.text.gpt2 import GPT2

IDS = golden()["ids"]
T = IDS.shape[1]


@pytest.mark.parametrize("name", select("*", CONFIG))
def test_putting_back_what_was_there_changes_nothing(name: str) -> None:
    model = as_loaded()
    logits, cache = model.run_with_cache(IDS, "*")
    for change in (cache[name], lambda x: x, Part(cache[name], positions=range(2, 5))):
        np.testing.assert_allclose(model.run_with_edits(IDS, {name: change})[0], logits, atol=2e-5)


@pytest.mark.parametrize("name", select("*", CONFIG))
def test_every_point_reaches_the_logits(name: str) -> None:
    model = as_loaded()
    # Neither a norm nor a softmax may undo it: not the same everywhere, and not affine.
    edited = model.run_with_edits(IDS, {name: lambda x: 1.5 * np.tanh(x) + 0.1 * np.arange(x.shape[-1])})[0]
    assert np.abs(edited - model(IDS)).max() > 1e-3


@pytest.mark.parametrize(
    ("point", "module"),
    [
        ("resid_pre", "h.1"),
        ("ln1.in", "h.1.ln_1"),
        ("ln2.in", "h.1.ln_2"),
        ("ln1.out", "h.1.attn"),
        ("mlp.in", "h.1.mlp"),
        ("mlp.post", "h.1.mlp.c_proj"),
        ("attn.o.in", "h.1.attn.c_proj"),
    ],
)
def test_an_edit_is_what_torch_computes_behind_a_hook(point: str, module: str, small: Path) -> None:
    reference, ids = reference_model(), random_ids(2, 9)
    place = reference.transformer.get_submodule(module)
    direction = np.random.default_rng(1).normal(size=192 if "post" in point else 48).astype(np.float32)
    added = torch.tensor(direction) * (torch.arange(9) >= 4)[:, None]
    place.register_forward_pre_hook(lambda module, inputs: (inputs[0] + added, *inputs[1:]))
    theirs = reference_logits(reference, ids)

    def add(x: np.ndarray) -> np.ndarray:
        return x + direction.reshape(x.shape[2:])

    change = {f"blocks.1.{point}": Part(add, positions=slice(4, None))}
    ours = Model.from_pretrained(small).run_with_edits(ids, change)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours - Model.from_pretrained(small)(ids))[:, 4:].max() > 0.1


def test_patching_heads_is_what_transformer_lens_does() -> None:
    """One sweep by hand, an edit at a time: each head's z from the clean run into the corrupted one."""
    model = as_loaded()
    _, clean = model.run_with_cache(golden()["clean"])
    for layer in range(2):
        for head in range(2):
            change = {f"blocks.{layer}.attn.z": Part(clean["z", layer], heads=head)}
            logits, _ = model.run_with_edits(golden()["corrupted"], change)
            expected = under("patch")["z"][layer, head]
            np.testing.assert_allclose(logits[0, -1, 5] - logits[0, -1, 9], expected, atol=2e-5)


@given(
    st.sampled_from(["blocks.0.attn.z", "blocks.1.attn.pattern", "blocks.0.attn.q", "blocks.1.attn.result"]),
    st.sets(st.integers(0, 1)),
    st.sets(st.integers(0, T - 1)) | st.slices(T).filter(lambda s: (s.step or 1) > 0 and (s.start or 0) >= 0),
)
def test_exactly_the_part_changes(name: str, heads: set[int], positions) -> None:
    positions = positions if isinstance(positions, slice) else sorted(positions)
    if isinstance(positions, slice) and positions.stop is not None and positions.stop < 0:
        return
    model = as_loaded()
    _, before = model.run_with_cache(IDS, name)
    _, after = model.run_with_edits(IDS, {name: Part(lambda x: x + 1, positions, sorted(heads))}, name)
    letters = points(CONFIG)[name].split()
    changed = np.moveaxis(after[name] != before[name], (letters.index("H"), letters.index("T")), (0, 1))
    expected = np.zeros((2, T), bool)
    for head in heads:
        expected[head, positions] = True
    np.testing.assert_array_equal(changed.all((2, 3)), expected)
    np.testing.assert_array_equal(changed.any((2, 3)), expected)


def test_while_generating_positions_are_the_texts_own(small: Path) -> None:
    model, ids = Model.from_pretrained(small), random_ids(2, 12)
    array = np.random.default_rng(0).normal(size=(1, 7, 48)).astype(np.float32)
    changes = {
        "blocks.0.resid_post": Part(lambda x: -x, positions=[1, 6, 10]),
        "blocks.1.attn.z": Part(lambda z: 0 * z, positions=range(5, 64), heads=[0, 3]),
        "blocks.2.attn.pattern": Part(lambda p: p * p, positions=slice(3, None, 2), heads=1),
    }
    edited = model.with_edits(changes | {"blocks.1.mlp_out": Part(array, positions=slice(0, 7))})
    whole = model.run_with_edits(
        ids, changes | {"blocks.1.mlp_out": lambda x: np.concatenate([np.broadcast_to(array, (2, 7, 48)), x[:, 7:]], 1)}
    )[0]
    assert np.abs(whole - model(ids)).max() > 0.1
    session = edited.start()
    np.testing.assert_allclose(session.feed(ids[:, :5]), whole[:, 4], atol=1e-4)
    for position in range(5, 12):
        np.testing.assert_allclose(session.feed(ids[:, position : position + 1]), whole[:, position], atol=1e-4)


def test_an_edited_model_generates_scores_and_leaves_the_first_alone(small: Path) -> None:
    model = GPT2.from_pretrained(small)
    prompt, lift = random_ids(1, 6)[0].tolist(), 40 * model.params.lm_head[13]
    before = model.generate(prompt, max_new_tokens=8).ids
    edited = model.with_edits({"ln_final.normalized": Part(lambda x: x + lift, positions=slice(8, None))})
    after = edited.generate(prompt, max_new_tokens=8).ids
    assert after == before[:3] + [13] * 5
    assert model.generate(prompt, max_new_tokens=8).ids == before


def test_edits_are_seen_by_a_capture_and_add_up(small: Path) -> None:
    model, ids = Model.from_pretrained(small), random_ids(1, 5)[0]
    once = model.with_edits({"embed": lambda x: x + 1})
    _, cache = once.run_with_edits(ids, {"embed": lambda x: 2 * x}, "embed")
    np.testing.assert_allclose(cache["embed"], 2 * (model.params.wte[ids] + 1)[None], rtol=1e-6)
    capture = Capture(["embed"])
    once.start(tap=capture).feed([ids])
    np.testing.assert_allclose(capture.values["embed"], (model.params.wte[ids] + 1)[None], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.0.resid_pst": np.zeros(3)}, "no activation is named 'blocks.0.resid_pst'; the nearest is 'blocks.0."),
        ({"embed": np.zeros((2, T, 17))}, r"an edit of embed must have its shape \(2, 8, 16\), got \(2, 8, 17\)"),
        ({"*.attn.z": np.zeros((2, T, 2))}, r"an edit of blocks.0.attn.z must have its shape \(2, 8, 2, 8\), got"),
        ({"embed": lambda x: x[:1]}, r"an edit of embed must have its shape \(2, 8, 16\), got \(1, 8, 16\)"),
        ({"embed": Part(np.zeros((2, T, 16)), heads=1)}, "embed has no heads, got heads=1"),
        ({"blocks.0.attn.z": Part(np.abs, heads=[0, 2])}, r"heads must be between 0 and 1, got \[0, 2\]"),
        ({"blocks.0.attn.z": Part(np.abs, positions=8)}, "positions must be between 0 and 7, got 8"),
        ({"blocks.0.attn.z": Part(np.abs, positions=[-1])}, r"positions must be between 0 and 7, got \[-1\]"),
    ],
)
def test_wrong_edits_are_refused_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        as_loaded().run_with_edits(IDS, changes)
    assert "\n" not in str(caught.value)


def test_a_wrong_array_while_generating_is_refused() -> None:
    edited = as_loaded().with_edits({"embed": np.zeros((3, 4, 16))})
    with pytest.raises(ValueError, match=r"an edit of embed must have its shape \(2, 8, 16\), got \(3, 4, 16\)"):
        edited.start().feed(IDS)

"""The Jacobian lens: beside its authors' code, torch's Jacobian, TransformerLens's interventions, and by its laws."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import ours
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from tiny_models import MODELS, tensors

from gpt2_np import GPT2
from gpt2_np.gradients import check_gradient, log_probability
from gpt2_np.gradients.jacobians import names_read, summed_jacobians
from gpt2_np.internals import jacobian_lens, lens_edits
from gpt2_np.internals.lens import logit_lens
from gpt2_np.model.config import ACTIVATIONS, Config
from gpt2_np.model.params import assemble, map_arrays
from gpt2_np.session.model import Model


@cache
def golden() -> dict[str, np.ndarray]:
    """The authors' answers; the file's own metadata say how they were made."""
    return load_file(Path(__file__).parent / "golden" / "jacobian_lens.safetensors")


def tiny(number: int, dtype: type = np.float32) -> Model:
    about = {name: value for name, value in MODELS[number].items() if name not in ("seed", "tie_word_embeddings")}
    config = Config(**about)
    params = assemble(tensors(MODELS[number]), config)
    return Model(map_arrays(params, lambda array: array.astype(dtype)), config, backend="numpy")


def texts(number: int) -> list[np.ndarray]:
    return [golden()[f"{number}.text.{text}"] for text in range(4)]


def fitted(number: int = 4, dtype: type = np.float32) -> jacobian_lens.Lens:
    return jacobian_lens.fit(tiny(number, dtype), texts(number), length=36)


@pytest.mark.parametrize("number", [3, 4])
def test_the_matrices_and_what_is_read_are_the_authors_own(number: int) -> None:
    lens = fitted(number, np.float64)
    assert (lens.texts, lens.offered) == (3, 4)  # one is too short
    np.testing.assert_allclose(lens.jacobian, golden()[f"{number}.jacobian"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fitted(number).jacobian, golden()[f"{number}.jacobian"], atol=1e-5)
    model, ids = tiny(number), texts(number)[0]
    logits, activations = model.run_with_cache(ids[None], jacobian_lens.STREAMS)
    read = lens.read(activations)
    np.testing.assert_allclose(read, golden()[f"{number}.logits"], atol=2e-4)
    np.testing.assert_array_equal(read[-1], logits[0])
    looked = lens(model, ids)
    np.testing.assert_array_equal(looked.logits, read)
    assert looked.labels == logit_lens(model, ids).labels[1:]


def last_stream(reference: Any, stream: torch.Tensor, layer: int) -> torch.Tensor:
    """What the blocks behind a layer make of its stream, (1, T, D)."""
    for block in reference.transformer.h[layer + 1 :]:
        out = block(stream)
        stream = out if torch.is_tensor(out) else out[0]
    return stream


@settings(max_examples=12)
@given(
    activation=st.sampled_from(sorted(set(ACTIVATIONS) - {"xielu"})),
    inverse=st.booleans(),
    start=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_they_are_sums_of_torchs_jacobian(activation: str, inverse: bool, start: int, seed: int) -> None:
    reference = reference_model(
        seed, n_embd=12, n_head=3, activation_function=activation, scale_attn_by_inverse_layer_idx=inverse
    ).double()
    ids, model, T = random_ids(1, 9, seed=seed), ours(reference), 9
    _, activations = model.run_with_cache(ids, names_read(3))
    found = summed_jacobians(activations, slice(start, T - 1))
    _, streams = model.run_with_cache(ids, "*.resid_post")
    for layer in range(2):
        whole = torch.autograd.functional.jacobian(
            lambda x, layer=layer: last_stream(reference, x, layer), torch.tensor(streams["resid_post", layer])
        )
        expected = whole[0, start : T - 1, :, 0, start : T - 1].sum(0).mean(1).numpy()
        np.testing.assert_allclose(found[layer], expected, atol=1e-10)


def test_a_lens_of_parts_is_the_lens_of_all_and_a_stopped_fit_goes_on_to_the_same_bits() -> None:
    model, every = tiny(4), texts(4)
    whole = fitted()
    parts = [jacobian_lens.fit(model, some, length=36) for some in (every[:1], every[1:])]
    merged = jacobian_lens.merge(parts)
    np.testing.assert_allclose(merged.jacobian, whole.jacobian, rtol=1e-13, atol=1e-15)
    assert (merged.texts, merged.offered) == (whole.texts, whole.offered)
    kept: list[jacobian_lens.Lens] = []
    jacobian_lens.fit(model, every, length=36, every=2, part=kept.append)
    assert [part.offered for part in kept] == [2, 4]
    again = jacobian_lens.fit(model, every, length=36, after=kept[0])
    np.testing.assert_array_equal(again.total, whole.total)
    assert again.digest == whole.digest
    np.testing.assert_array_equal(jacobian_lens.fit(model, every, length=36, after=whole).total, whole.total)
    with pytest.raises(ValueError, match="a fit goes on with its own texts, and the first 2 are others"):
        jacobian_lens.fit(model, every[::-1], length=36, after=kept[0])
    with pytest.raises(ValueError, match="its own texts, 2 and more of them, got 1"):
        jacobian_lens.fit(model, every[:1], length=36, after=kept[0])
    with pytest.raises(ValueError, match="its own skip_first and length, got 3 and 36 after one with 16 and 36"):
        jacobian_lens.fit(model, every, length=36, skip_first=3, after=kept[0])
    with pytest.raises(ValueError, match="which was merged"):
        jacobian_lens.fit(model, every, length=36, after=merged)


def test_a_file_gives_back_the_lens_and_others_are_refused(tmp_path: Path) -> None:
    path, lens = tmp_path / "lens", fitted()
    jacobian_lens.save(lens, path)
    again = jacobian_lens.load(path)
    np.testing.assert_array_equal(again.total, lens.total)
    assert replace(again, total=lens.total).__dict__ == lens.__dict__
    about = {
        "format": jacobian_lens.FORMAT,
        "texts": "3",
        "offered": "4",
        "skip_first": "16",
        "length": "36",
        "digest": "",
    }
    for total, changes, why in [
        (lens.total, {"format": "other"}, "its format is 'other'"),
        (lens.total, {"texts": "x"}, "must be a whole number"),
        (lens.total, {"texts": "0"}, "can't be a fit's"),
        (lens.total, {"texts": "5"}, "can't be a fit's"),
        (lens.total, {"length": "17"}, "can't be a fit's"),
        (lens.total * np.nan, {}, "can't be a fit's"),
        (lens.total[:, 1:], {}, r"its matrices are float64 \(3, 15, 16\)"),
        (lens.total.astype(np.float32), {}, "its matrices are float32"),
    ]:
        save_file({"total": np.ascontiguousarray(total)}, path, about | changes)
        with pytest.raises(ValueError, match=f"is not a Jacobian lens: .*{why}"):
            jacobian_lens.load(path)
    save_file({"other": lens.total}, path, about)
    with pytest.raises(ValueError, match="is not a Jacobian lens"):
        jacobian_lens.load(path)
    for kind in (torch.bfloat16, torch.float8_e4m3fn):
        save_torch({"total": torch.from_numpy(lens.total).to(kind)}, path, about)
        with pytest.raises(ValueError, match="is not a Jacobian lens") as error:
            jacobian_lens.load(path)
        assert "\n" not in str(error.value)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a Jacobian lens"):
        jacobian_lens.load(path)
    with pytest.raises(FileNotFoundError):
        jacobian_lens.load(tmp_path / "none")


def test_what_cannot_be_fitted_or_read_is_refused_in_a_line() -> None:
    model, every, lens = tiny(4), texts(4), fitted()
    for options, why in [
        ({"skip_first": -1}, "skip_first must be at least 0, got -1"),
        ({"length": 17}, "length must be between 18 and 48, the model's context, got 17"),
        ({"length": 49}, "length must be between 18 and 48, the model's context, got 49"),
        ({"every": 0}, "every must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=why):
            jacobian_lens.fit(model, every, **({"length": 36} | options))
    with pytest.raises(ValueError, match="needs a text of at least 18 tokens, got none in 2"):
        jacobian_lens.fit(model, [every[2], []], length=36)
    with pytest.raises(ValueError, match="at least 2 layers"):
        jacobian_lens.fit(tiny(0), every, length=36)
    with pytest.raises(ValueError, match="without edits"):
        jacobian_lens.fit(model.with_edits({"blocks.0.mlp_out": np.zeros_like}), every, length=36)
    with pytest.raises(ValueError, match="a text needs a model with a tokenizer; give ids instead"):
        jacobian_lens.fit(model, ["a"], length=36)
    with pytest.raises(ValueError, match="fitted for 4 layers of width 16, got a model with 3 of 16"):
        lens(tiny(3), every[0])
    with pytest.raises(ValueError, match="a lens looks at one prompt, got 2 rows"):
        lens.read(model.run_with_cache(np.stack([every[0], every[0]]), jacobian_lens.STREAMS)[1])
    for wrong in (lambda: lens.transport(np.zeros(16), 4), lambda: lens.direction(model, 5, -5)):
        with pytest.raises(ValueError, match=r"layer must be between -4 and 3, got"):
            wrong()
    with pytest.raises(ValueError, match="nothing to merge"):
        jacobian_lens.merge([])
    with pytest.raises(ValueError, match="agree in length, got 36 and 40"):
        jacobian_lens.merge([lens, replace(lens, length=40)])
    with pytest.raises(ValueError, match="agree in shape"):
        jacobian_lens.merge([lens, replace(lens, total=lens.total[1:])])


def test_texts_are_encoded_as_they_stand() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    text = "The king had a daughter."
    ids = model.tokenizer.encode(text)
    found, expected = (jacobian_lens.fit(model, [one], skip_first=len(ids) - 2, length=64) for one in (text, ids))
    np.testing.assert_array_equal(found.total, expected.total)
    assert found.digest == expected.digest


def test_interventions_are_transformer_lens_own() -> None:
    model, ids = tiny(4), texts(4)[1]
    given = golden()["4.jacobian"].astype(np.float64)
    lens = jacobian_lens.Lens(given * 3, 3, 4, 16, 36)
    np.testing.assert_allclose(model(ids), golden()["4.plain"], atol=2e-5)
    changed = {
        "steer": model.with_edits(lens_edits.steer(lens, model, 5, [0, -2], strength=1.5))(ids[:29]),
        "ablate": model.with_edits(lens_edits.ablate(lens, model, [5, 9], [1, 2]))(ids),
        "swap": model.with_edits(lens_edits.swap(lens, model, 5, 9, [2], strength=2.0))(ids),
    }
    for name, logits in changed.items():
        np.testing.assert_allclose(logits, golden()[f"4.{name}"], atol=5e-5, err_msg=name)
        assert np.abs(logits - golden()["4.plain"][: len(logits)]).max() > 0.01


def test_interventions_at_positions_pass_gradients_and_refuse() -> None:
    model, lens, ids = tiny(4, np.float64), fitted(), texts(4)[1]
    for edits in (
        lens_edits.ablate(lens, model, [5, 9], [1, 2], positions=[3, 4]),
        lens_edits.swap(lens, model, 5, 9, [2], positions=[3, 4]),
    ):
        edited = model.with_edits(edits)
        np.testing.assert_array_equal(edited(ids)[:3], model(ids)[:3])
        assert np.abs(edited(ids)[3:] - model(ids)[3:]).max() > 1e-3
        check_gradient(edited, ids, log_probability(3), "blocks.0.resid_post")
    streams = model.with_edits(lens_edits.ablate(lens, model, [5], [3])).run_with_cache(ids[None], "*.resid_post")[1]
    assert np.abs(streams["resid_post", 3][0] @ lens.direction(model, 5, 3)).max() < 1e-10
    with pytest.raises(ValueError, match="different directions, got 5 and 5 at layer 2"):
        lens_edits.swap(lens, model, 5, 5, [2])
    with pytest.raises(ValueError, match="layer must be between -4 and 3, got 4"):
        lens_edits.steer(lens, model, 5, [4])
    for wrong in (lens_edits.steer, lambda *rest, **most: lens_edits.swap(*rest[:3], 9, rest[3], **most)):
        with pytest.raises(ValueError, match="strength must be finite, got inf"):
            wrong(lens, model, 5, [0], strength=np.inf)

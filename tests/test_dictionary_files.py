"""A stranger's files: whatever is wrong with them is told in one line, and nothing in them is trusted."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dictionary_folders import CONFIGS, tensors, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries import RELEASES, releases
from gpt2_np.internals.dictionaries.config import read


def fields(folder: Path, **changed: Any) -> None:
    """Another cfg.json: the fields changed, those that are None taken away."""
    found = json.loads((folder / "cfg.json").read_text()) | changed
    (folder / "cfg.json").write_text(json.dumps({name: x for name, x in found.items() if x is not None}))


def weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Other weights."""
    found = tensors("topk", "/")
    change(found)
    save_file(found, folder / "sae_weights.safetensors")


def metadata(folder: Path, **changed: Any) -> None:
    fields(folder, metadata=CONFIGS["topk"]["metadata"] | changed)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "cfg.json").unlink(), "holds no cfg.json"),
    "no weights": (lambda f: (f / "sae_weights.safetensors").unlink(), "holds no sae_weights.safetensors"),
    "pickled": (
        lambda f: (f / "sae_weights.safetensors").rename(f / "sae_weights.pt"),
        "has 'sae_weights.pt', and pickle files are never opened",
    ),
    "no JSON": (lambda f: (f / "cfg.json").write_text("{"), "is not valid JSON"),
    "a list": (lambda f: (f / "cfg.json").write_text("[]"), "must hold a JSON object, got list"),
    "deep": (lambda f: (f / "cfg.json").write_text("[" * 100_000), "nested too deeply"),
    "no width": (lambda f: fields(f, d_in=None), "d_in must be a whole number between 1 and 16777216, got None"),
    "a boolean width": (lambda f: fields(f, d_in=True), "d_in must be a whole number"),
    "a fraction": (lambda f: fields(f, d_sae=40.5), "d_sae must be a whole number"),
    "a huge one": (lambda f: fields(f, d_sae=10**12), "d_sae must be a whole number between 1 and 16777216"),
    "another one": (lambda f: fields(f, d_sae=41), r"W_dec must be \(41, 12\), got \(40, 12\)"),
    "no k": (lambda f: fields(f, k=41), "k must be a whole number between 1 and 40, got 41"),
    "architecture": (lambda f: fields(f, architecture="nothing"), "architecture must be one of standard, topk"),
    "list of them": (lambda f: fields(f, architecture=["topk"]), "architecture must be one of standard, topk"),
    "temporal": (lambda f: fields(f, architecture="temporal"), "'temporal' isn't read here: its features depend on"),
    "normalisation": (lambda f: fields(f, normalize_activations="no"), "normalize_activations must be one of none,"),
    "a list of it": (lambda f: fields(f, normalize_activations=[]), "normalize_activations must be one of none,"),
    "whitening": (
        lambda f: fields(f, normalize_activations="covariance_whitening"),
        "normalize_activations must be one of none,",
    ),
    "bias": (lambda f: fields(f, apply_b_dec_to_input="yes"), "apply_b_dec_to_input must be true or false, got 'yes'"),
    "hook": (lambda f: metadata(f, hook_name=7), "hook_name must be a text, got 7"),
    "head": (lambda f: metadata(f, hook_head_index=-1), "hook_head_index must be a whole number between 0"),
    "transcoder": (
        lambda f: fields(f, architecture="transcoder", d_out=12),
        "apply_b_dec_to_input must be false for a transcoder",
    ),
    "activation function": (
        lambda f: fields(f, architecture="standard", metadata=None, activation_fn_str="tanh-relu"),
        "activation_fn must be 'relu', or 'topk' .* got 'tanh-relu'",
    ),
    "cut short": (
        lambda f: (f / "sae_weights.safetensors").write_bytes((f / "sae_weights.safetensors").read_bytes()[:-9]),
        "is not a sound safetensors file",
    ),
    "a pointer": (
        lambda f: (f / "sae_weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "a tensor missing": (lambda f: weights(f, lambda w: w.pop("b_enc")), "missing b_enc"),
    "a tensor more": (lambda f: weights(f, lambda w: w.update(b_gate=w["b_enc"])), "unexpected b_gate"),
    "transposed": (
        lambda f: weights(f, lambda w: w.update(W_enc=np.ascontiguousarray(w["W_enc"].T))),
        r"W_enc must be \(12, 40\), got \(40, 12\)",
    ),
    "whole numbers": (
        lambda f: weights(f, lambda w: w.update(b_enc=w["b_enc"].astype(np.int32))),
        "b_enc must be F32, F16, BF16 or F64, got I32",
    ),
    "not a number": (
        lambda f: weights(f, lambda w: w["b_enc"].fill(np.nan)),
        "weights must be finite, got NaN or infinity in b_enc",
    ),
    "fine-tuned": (
        lambda f: weights(f, lambda w: w.update(scaling_factor=np.full(40, 2, np.float32))),
        "scaling_factor must be 1 everywhere",
    ),
    "thresholds": (
        lambda f: weights(f, lambda w: w.update(topk_threshold=np.ones(3, np.float32))),
        r"topk_threshold must be one number, got \(3,\)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    breaks, message = BROKEN[name]
    breaks(unpack("topk", tmp_path))
    with pytest.raises((ValueError, OSError), match=message) as error:
        dictionaries.load(tmp_path)
    assert "\n" not in str(error.value)


def test_what_saelens_passes_over_is_passed_over(tmp_path: Path) -> None:
    unpack("topk", tmp_path)
    weights(tmp_path, lambda w: w.update(scaling_factor=np.ones(40, np.float32)))
    fields(tmp_path, something="else", device="cuda:1", dtype="torch.bfloat16")
    assert dictionaries.load(tmp_path).config.k == 5


def test_a_folder_of_folders_names_one(tmp_path: Path) -> None:
    unpack("topk", tmp_path / "blocks.1.hook_resid_pre")
    with pytest.raises(FileNotFoundError, match=r"its sub-folders do: name one, such as 'blocks.1.hook_resid_pre'"):
        dictionaries.load(tmp_path)
    assert dictionaries.load(tmp_path, "blocks.1.hook_resid_pre").config.d_sae == 40
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        dictionaries.load(tmp_path / "nowhere")


plain = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
)


@given(
    st.dictionaries(
        st.sampled_from(sorted({*CONFIGS["topk"], *CONFIGS["old_topk"], *CONFIGS["old_standard"]})), anything
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
def test_any_configuration_is_read_or_refused(changed: dict[str, Any]) -> None:
    for name in ("topk", "old_topk"):
        with contextlib.suppress(ValueError):
            assert read(CONFIGS[name] | changed).shapes


def test_releases_are_those_of_saelens() -> None:
    assert len(RELEASES) == 18
    assert sum(release.pickled for release in RELEASES.values()) == 1
    known = RELEASES["gpt2-small-res-jb"]
    assert known.path("blocks.8.hook_resid_pre") == "blocks.8.hook_resid_pre"
    assert known.overrides["model_from_pretrained_kwargs"] == {"center_writing_weights": True}
    assert len(RELEASES["gpt2-small-mlp-tm"].factors) == 12


def cached(root: Path, repository: str, path: str, source: Path) -> None:
    """A hub's cache with one dictionary in it, as huggingface_hub lays it out."""
    home = root / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    shutil.copytree(source, home / "snapshots" / "abc" / path)


def test_releases_come_from_the_cache_with_what_the_list_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    unpack("old_standard", tmp_path / "one")
    fields(tmp_path / "one", normalize_activations=True)
    plain = dictionaries.load(tmp_path / "one")
    known = RELEASES["gpt2-small-mlp-tm"]
    sae_id = "blocks.1.hook_mlp_out"
    cached(tmp_path / "cache", known.repository, known.path(sae_id), tmp_path / "one")
    found = dictionaries.load("gpt2-small-mlp-tm", sae_id)
    x = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    assert plain.config.normalize_activations == "expected_average_only_in"
    assert found.config.normalize_activations == "none"
    np.testing.assert_allclose(found.encode(x), plain.encode(x * np.float32(known.factors[sae_id])), atol=1e-5)
    assert found.config.needs() == {"center_writing_weights": True}
    by_hub_id = dictionaries.load(known.repository, known.path(sae_id))
    np.testing.assert_array_equal(by_hub_id.encode(x), plain.encode(x))


def test_what_the_hub_does_not_have_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def nobody(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", nobody)
    with pytest.raises(ConnectionError, match=r"somebody/saes's a/b/cfg.json is not in the cache"):
        dictionaries.load("somebody/saes", "a/b")
    for path in ("../a", "a//b", "/a"):
        with pytest.raises(ValueError, match="a dictionary's folder on the hub is a path like"):
            releases.from_hub("somebody/saes", path)
    with pytest.raises(FileNotFoundError, match="a hub id is written OWNER/NAME"):
        dictionaries.load("some--body/x..y")

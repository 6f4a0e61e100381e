"""Weights as other savers write them: what transformers loads has its logits here, what it makes up is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import random_ids, reference_logits, reference_model
from safetensors.torch import load_file, save_file, save_model
from transformers import GPT2LMHeadModel

from gpt2_np.cli import main
from gpt2_np.model.config import Config
from gpt2_np.session.model import Model
from gpt2_np.weights import load as weights

IDS = random_ids(1, 12)
Tensors = dict[str, torch.Tensor]


def rewrite(source: Path, target: Path, change: Callable[[Tensors], Tensors], **fields: object) -> Path:
    """A copy of the checkpoint whose tensors went through `change`, and its configuration through `fields`."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = change(load_file(source / "model.safetensors"))
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, target / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | fields))
    return target


def as_transformers(folder: Path) -> None:
    """The logits are those of transformers, which made nothing up."""
    theirs, report = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    np.testing.assert_allclose(Model.from_pretrained(folder)(IDS), reference_logits(theirs.eval(), IDS), atol=1e-4)


def prefixed(prefix: str, bare: bool = False) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        prefix + (name.removeprefix("transformer.") if bare else name): tensor for name, tensor in tensors.items()
    }


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def head_alone(tensors: Tensors) -> Tensors:
    return without("wte")(tensors) | {"lm_head.weight": tensors["transformer.wte.weight"]}


LOADED: dict[str, Callable[[Tensors], Tensors]] = {
    "as it is": lambda t: t,
    "no prefix": prefixed("", bare=True),
    "a doubled prefix": prefixed("transformer."),
    "a doubled prefix and a head": lambda t: (
        prefixed("transformer.")(head_alone(t) | {"lm_head.weight": t["transformer.wte.weight"] * 2})
        | {"transformer.transformer.wte.weight": t["transformer.wte.weight"]}
    ),
    "the head alone": head_alone,
    "the head alone, no prefix": lambda t: prefixed("", bare=True)(head_alone(t)),
    "the head below the prefix": lambda t: t | {"transformer.lm_head.weight": t["transformer.wte.weight"] * 2},
    "the same tensor under two names": lambda t: t | {"wpe.weight": t["transformer.wpe.weight"]},
    "a classifier": lambda t: t | {"score.weight": torch.ones(2, 48), "classifier.bias": torch.ones(3)},
    "a value head": lambda t: t | {"v_head.summary.weight": torch.ones(1, 48), "v_head.summary.bias": torch.ones(1)},
    "a second head": lambda t: t | {"multiple_choice_head.summary.weight": torch.ones(1, 48)},
    "buffers": lambda t: (
        t
        | {
            "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
            "h.1.attn.bias": torch.ones(1, 1, 64, 64),
            "transformer.transformer.h.1.attn.bias": torch.ones(1, 1, 64, 64),
        }
    ),
    "a layer that config.json doesn't count": lambda t: t | {"transformer.h.3.ln_1.bias": torch.ones(48)},
    "cross-attention that is off": lambda t: t | {"transformer.h.0.crossattention.c_attn.weight": torch.ones(48, 96)},
}


@pytest.mark.parametrize("case", LOADED)
def test_what_transformers_loads_is_loaded(case: str, small: Path, tmp_path: Path) -> None:
    as_transformers(rewrite(small, tmp_path, LOADED[case]))


def test_save_model_drops_the_embedding(tmp_path: Path) -> None:
    model = reference_model()
    model.save_pretrained(tmp_path)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert "transformer.wte.weight" not in load_file(tmp_path / "model.safetensors")
    as_transformers(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    assert loaded.params.lm_head is loaded.params.wte


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stored", ["equal", "different", "no head", "no embedding"])
def test_tied_or_not_as_transformers_decides(stored: str, tied: bool, small: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[Tensors], Tensors]] = {
        "equal": lambda t: t | {"lm_head.weight": t["transformer.wte.weight"]},
        "different": lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] * 2},
        "no head": lambda t: t,
        "no embedding": head_alone,
    }
    folder = rewrite(small, tmp_path, changes[stored], tie_word_embeddings=tied)
    missing = {"no head": "lm_head.weight", "no embedding": "wte.weight"}.get(stored)
    if missing is not None and not tied:
        with pytest.raises(ValueError, match=f"missing {missing}"):
            Model.from_pretrained(folder)
        return
    as_transformers(folder)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "base_model.model.", "transformer.transformer.", "x"]
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_foreign_prefix_is_named(prefix: str, bare: bool, small: Path, tmp_path: Path) -> None:
    if bare and prefix == "transformer.transformer.":
        pytest.skip("transformers takes a doubled prefix off")
    folder = rewrite(small, tmp_path, prefixed(prefix, bare))
    with pytest.raises(ValueError, match="no tensor has a name of GPT-2's") as error:
        Model.from_pretrained(folder)
    shown = "transformer." if prefix.startswith("transformer.") else prefix
    assert f"take the prefix {shown!r} off its names" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda t: {n.replace("c_attn.", "c_attn.base_layer."): v for n, v in t.items()},
            "h.0.attn.c_attn.base_layer.weight",
        ),
        (lambda t: {n.replace("ln_f.weight", "ln_f.gamma"): v for n, v in t.items()}, "unexpected ln_f.gamma"),
        (lambda t: without("h.2.")(t) | {"model.h.2.ln_1.bias": torch.ones(48)}, "model.h.2.ln_1.bias"),
    ],
)
def test_what_transformers_would_make_up_is_refused(change, named: str, small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, change)
    _, report = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert report["missing_keys"]
    with pytest.raises(ValueError, match="missing ") as error:
        Model.from_pretrained(folder)
    assert named in str(error.value)


def test_two_tensors_of_one_name_that_differ_are_refused(small: Path, tmp_path: Path) -> None:
    folder = rewrite(small, tmp_path, lambda t: t | {"wpe.weight": t["transformer.wpe.weight"] * 2})
    with pytest.raises(ValueError, match=r"tensor wpe\.weight is there twice, with different values"):
        Model.from_pretrained(folder)


def test_what_is_passed_over_is_known(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rewrite(small, tmp_path, LOADED["a classifier"], loss_type="ForCausalLMLoss")
    main(["info", "--model", str(folder), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["ignored_keys"] == ["loss_type"]
    assert sorted(shown["ignored_tensors"]) == ["classifier.bias", "score.weight"]
    main(["info", "--model", str(folder)])
    assert "ignored tensors      classifier.bias, score.weight" in capsys.readouterr().out
    config = Config.from_file(folder / "config.json")
    assert sorted(weights.read(folder, config)[1]) == ["classifier.bias", "score.weight"]
    assert weights.read(small, config)[1] == []


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"model.safetensors": POINTER},
            r"model\.safetensors is a Git LFS pointer, not the file itself; .*git lfs pull",
        ),
        ({"model.safetensors": b"<!DOCTYPE html>\n<html>"}, r"model\.safetensors is a web page"),
        ({"config.json": POINTER}, r"config\.json is a Git LFS pointer"),
        ({"model.safetensors.index.json": POINTER}, r"index\.json is a Git LFS pointer"),
        ({"adapter_model.safetensors": b"", "adapter_config.json": b"{}"}, "holds an adapter .*merge_and_unload"),
        ({"adapter_model.bin": b""}, "holds an adapter .*merge_and_unload"),
        ({"model.fp16.safetensors": b""}, r"variant 'fp16' of the weights: rename"),
        ({"model.safetensors.index.fp16.json": b"{}"}, "variant 'fp16' of the weights"),
        ({"model-00001-of-00002.safetensors": b""}, r"the shard .* but no model\.safetensors\.index\.json"),
        (
            {"pytorch_model.bin": b"", "training_args.bin": b""},
            r"pytorch_model\.bin .*pickle files are never opened; conv",
        ),
        ({"pytorch_model-00001-of-00002.bin": b""}, "pickle files are never opened"),
        ({"consolidated.pth": b""}, "pickle files are never opened"),
        ({"model.ckpt.index": b""}, "TensorFlow"),
        ({"gpt2-q8_0.gguf": b"GGUF"}, r"gpt2-q8_0\.gguf but no model\.safetensors; that is llama\.cpp's format"),
        ({"model.onnx": b""}, "that is an ONNX graph"),
        ({"tf_model.h5": b""}, "that is TensorFlow's format; convert it"),
        ({"flax_model.msgpack": b""}, "that is Flax's format; convert it"),
        ({"weights.npz": b""}, "that is NumPy's format"),
        ({"gpt2.safetensors": b""}, r"gpt2\.safetensors but no model\.safetensors; .* rename the file"),
        ({"README.md": b""}, r"holds no model\.safetensors$"),
        ({"training_args.bin": b"", "optimizer.pt": b""}, r"holds no model\.safetensors$"),
    ],
    ids=str,
)
def test_other_files_are_told_for_what_they_are(
    files: dict[str, bytes], message: str, small: Path, tmp_path: Path
) -> None:
    shutil.copy(small / "config.json", tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Model.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_an_adapter_without_a_config_is_told_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; .*holds an adapter .*merge_and_unload"):
        Model.from_pretrained(tmp_path)


def test_a_folder_in_place_of_the_weights_is_named(small: Path, tmp_path: Path) -> None:
    shutil.copy(small / "config.json", tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors must be a file, and is not"):
        Model.from_pretrained(tmp_path)

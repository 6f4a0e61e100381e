"""What is saved is what transformers loads, bit by bit; and ours loads it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import reference_model, save
from safetensors.numpy import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.model.params import flatten
from gpt2_np.weights import hub
from gpt2_np.weights.save import safetensors


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": False, "n_inner": 7, "resid_pdrop": 0.3}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transformers_loads_what_is_saved(fields: dict, dtype: str, tmp_path: Path) -> None:
    model = GPT2.from_pretrained(save(reference_model(**fields), tmp_path / "a"), dtype=dtype)
    model.save_pretrained(tmp_path / "b")
    theirs, info = GPT2LMHeadModel.from_pretrained(tmp_path / "b", dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.resid_pdrop == fields.get("resid_pdrop", 0.1)
    named = {name.removeprefix("transformer."): x.detach().numpy() for name, x in theirs.named_parameters()}
    assert named.keys() == {name for name, _ in flatten(model.params)}
    for name, array in flatten(GPT2.from_pretrained(tmp_path / "b", dtype=dtype).params):
        assert np.array_equal(array, named[name])
        assert array.dtype == dtype
    ids = [1, 2, 3]
    with torch.inference_mode():
        np.testing.assert_allclose(model(ids), theirs(torch.tensor([ids])).logits[0].numpy(), atol=1e-4)


def test_the_bundled_model_with_its_tokenizer(tmp_path: Path) -> None:
    model = GPT2.from_pretrained()
    model.save_pretrained(tmp_path / "copy")
    again = GPT2.from_pretrained(tmp_path / "copy")
    assert again.config == model.config
    assert again.tokenizer.encode("The king went.") == model.tokenizer.encode("The king went.")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert theirs("The king went.")["input_ids"] == model.tokenizer.encode("The king went.")
    again.save_pretrained(tmp_path / "copy")  # over the very files that are mapped
    assert np.array_equal(GPT2.from_pretrained(tmp_path / "copy")([1, 2, 3]), again([1, 2, 3]))
    assert not list((tmp_path / "copy").glob("*.part"))


def test_openai_s_vocabulary_files_become_one_that_transformers_reads(tmp_path: Path) -> None:
    folder = tmp_path / "openai"
    shutil.copytree(hub.BUNDLED / "tales", folder)
    model = GPT2.from_pretrained(folder).tokenizer.inner.model
    (folder / "tokenizer.json").unlink()
    model.save(str(folder))
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    GPT2.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("a king")[
        "input_ids"
    ] == GPT2.from_pretrained().tokenizer.encode("a king")


def test_reduced_precision_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only float32 and float64 weights can be saved, and h.0.attn.c_attn.weight"):
        GPT2.from_pretrained(dtype="int8").save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_library_reads_our_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "é": np.float64(3)[None],
        "n": np.zeros((0, 2), np.float32),
    }
    (tmp_path / "x").write_bytes(b"".join(bytes(piece) for piece in safetensors(tensors)))
    loaded = load_file(tmp_path / "x")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert np.array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype

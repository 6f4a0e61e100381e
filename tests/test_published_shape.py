"""The published 124M shape, randomly initialised: the same logits and tokens as transformers, the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_np import GPT2

PROMPT = np.random.default_rng(0).integers(0, 50257, 12).tolist()


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(eos_token_id=None)).eval()


@pytest.fixture(scope="module")
def folder(theirs: GPT2LMHeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as the published file has it: no prefix, mask buffers, the head tied and left out."""
    folder = tmp_path_factory.mktemp("gpt2")
    tensors = {
        name.removeprefix("transformer."): tensor.contiguous()
        for name, tensor in theirs.state_dict().items()
        if name != "lm_head.weight"
    }
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 1024, 1024).tril() for layer in range(12)}
    save_file(tensors | masks, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_ctx": 1024, "eos_token_id": None}))
    return folder


def test_logits(theirs: GPT2LMHeadModel, folder: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 50257, (1, 200))
    with torch.inference_mode():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(GPT2.from_pretrained(folder)(ids), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(GPT2.from_pretrained(folder, backend="numpy")(ids), expected, atol=1e-4, rtol=0)


def test_float64_logits(theirs: GPT2LMHeadModel, folder: Path) -> None:
    ids = np.random.default_rng(2).integers(0, 50257, (1, 30))
    exact = GPT2.from_pretrained(folder, dtype="float64")(ids)
    with torch.inference_mode():
        expected = theirs.double()(torch.tensor(ids)).logits.numpy()
    theirs.float()
    np.testing.assert_allclose(exact, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        pytest.param({}, 30, id="greedy"),
        pytest.param({"num_beams": 3}, 12, id="beams"),
        pytest.param({}, 200, id="greedy, 200 tokens", marks=pytest.mark.slow),
        pytest.param({"num_beams": 3}, 200, id="beams, 200 tokens", marks=pytest.mark.slow),
    ],
)
def test_tokens(options: dict, tokens: int, theirs: GPT2LMHeadModel, folder: Path) -> None:
    ids = torch.tensor([PROMPT])
    torch.set_num_threads(2)
    with torch.inference_mode():
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=0, **options
        )[0, len(PROMPT) :].tolist()
    torch.set_num_threads(1)
    assert GPT2.from_pretrained(folder).generate(PROMPT, max_new_tokens=tokens, **options).ids == expected

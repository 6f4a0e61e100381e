"""``rng="cuda"`` beside a CUDA device: torch's own draws there, and transformers' tokens. Runs where torch sees one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import SMALL, random_ids, reference_model, save

from decoders.random.draws import multinomial
from decoders.random.torch_rng import CUDA
from gpt2_np import GPT2
from gpt2_np.text.gpt2 import on_torch

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)

WARPERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.9},
    {"epsilon_cutoff": 3e-4},
    {"eta_cutoff": 3e-4},
    {"top_h": 0.5},
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 3},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1},
]


def stream(seed: int) -> CUDA:
    properties = torch.cuda.get_device_properties(0)
    return CUDA(seed, properties.multi_processor_count, properties.max_threads_per_multi_processor)


# Around the ends of a block, of the whole grid of an H100, and of the four numbers that each thread of it writes.
SIZES = [1, 255, 256, 257, 4096, 50_257, 270_335, 270_336, 270_337, 1_081_343, 1_081_344, 1_081_345, 3_000_000]


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63 - 1])
def test_uniforms_are_torch_s(seed: int) -> None:
    torch.manual_seed(seed)
    ours = stream(seed)
    for n in SIZES:
        np.testing.assert_array_equal(ours.uniform(n), torch.rand(n, device="cuda").cpu().numpy())


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63 - 1])
def test_exponentials_are_torch_s(seed: int) -> None:
    torch.manual_seed(seed)
    ours = stream(seed)
    for n in SIZES:
        theirs = torch.empty(n, device="cuda").exponential_().cpu().numpy()
        np.testing.assert_array_equal(ours.exponential(1, n, np.arange(n)), theirs)


@given(seed=st.integers(0, 2**63 - 1), rows=st.integers(1, 30), V=st.sampled_from([1, 97, 4096, 50_257]))
@settings(max_examples=40, deadline=None)
def test_other_shapes_too(seed: int, rows: int, V: int) -> None:
    torch.manual_seed(seed)
    ours = stream(seed)
    for _ in range(3):
        theirs = torch.empty(rows, V, device="cuda").exponential_().cpu().numpy()
        np.testing.assert_array_equal(ours.exponential(rows, V, np.arange(rows * V)), theirs.ravel())


@pytest.mark.parametrize("V", [97, 4096, 50_257])
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 5, 24])
def test_multinomial_is_torch_s(V: int, n: int, rows: int) -> None:
    p = np.random.default_rng(V).dirichlet(np.full(V, 0.3), rows).astype(np.float32)
    p[:, 0] += 0.01
    torch.manual_seed(5)
    ours, theirs = stream(5), torch.tensor(p, device="cuda")
    for _ in range(20):
        found = multinomial(ours, p, n, range(rows), rows)
        np.testing.assert_array_equal(found, torch.multinomial(theirs, n).cpu().numpy())


@pytest.fixture(scope="module")
def published_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of gpt2's shape: 124M parameters, 50,257 tokens."""
    fields = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    model = reference_model(0, **(SMALL | fields))
    with torch.no_grad():  # logits that spread over several units, as a trained model's
        model.transformer.wte.weight.mul_(0.3)
    return save(model, tmp_path_factory.mktemp("published"))


def same_tokens(folder: str | Path, options: dict[str, Any], sequences: int, length: int, seed: int) -> None:
    """Our tokens and transformers' on the device, from one prompt."""
    theirs = on_torch(folder, device="cuda")
    ours = GPT2.from_pretrained(folder, backend="numpy")
    prompt = random_ids(1, 5, ours.config.vocab_size, seed)[0].tolist()
    given = {"do_sample": True, "max_new_tokens": length, "num_return_sequences": sequences, **options}
    expected = theirs.implementation.transformers_generate(prompt, seed, **given)
    found = ours.generate(
        prompt,
        seed=seed,
        rng="cuda",
        cuda_multiprocessors=theirs.implementation.multiprocessors,
        eos_token_id=(),
        **given,
    )
    found = [one.ids for one in (found if sequences > 1 else [found])]
    assert found == expected


@pytest.mark.parametrize("options", WARPERS, ids=str)
def test_every_warper_on_the_bundled_model(options: dict[str, Any]) -> None:
    for sequences, seed in ((1, 0), (3, 1), (8, 2)):
        same_tokens("tales", options, sequences, 60, seed)


@pytest.mark.parametrize("options", WARPERS, ids=str)
def test_every_warper_at_50257_tokens(published_shape: Path, options: dict[str, Any]) -> None:
    same_tokens(published_shape, options, 4, 12, 3)


@pytest.mark.parametrize("sequences", [1, 2, 6, 24])  # 24 rows of 50,257 are more than one turn of an H100's threads
def test_batches_of_every_size(published_shape: Path, sequences: int) -> None:
    same_tokens(published_shape, {"top_k": 1000}, sequences, 8, 4)


OLDER = tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 24)


@pytest.mark.skipif(OLDER, reason="transformers 5.17 leaves sampled beams in the order drawn, 5.24 sorts them")
def test_beam_sampling(published_shape: Path) -> None:
    same_tokens("tales", {"num_beams": 3, "temperature": 0.9}, 1, 40, 5)
    same_tokens(published_shape, {"num_beams": 4}, 1, 12, 6)

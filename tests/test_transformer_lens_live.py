"""Beside TransformerLens itself, where it is installed: other weights than the golden file's, every activation."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import random_ids, reference_model, save
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution
from gpt2_np.internals.processing import process_weights
from gpt2_np.session.model import Model

pytest.importorskip(
    "transformer_lens",
    reason="pip install 'gpt2-np[lens]' brings TransformerLens; its answers to one model are in tests/golden",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # TransformerLens has some of its own


@pytest.mark.parametrize("processing", [False, True], ids=["as loaded", "processed"])
@pytest.mark.parametrize("seed", range(3))
def test_every_activation_and_the_logits(tmp_path: Path, seed: int, processing: bool) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    folder = save(reference_model(seed, n_layer=2 + seed), tmp_path)
    words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(97)}, unk_token="<0>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<0>", bos_token="<0>").save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    bridge.enable_compatibility_mode(no_processing=not processing)
    ids = random_ids(2, 9, seed=seed)
    with torch.no_grad():
        expected_logits, expected = bridge.run_with_cache(torch.tensor(ids))

    ours = Model.from_pretrained(folder)
    if processing:
        ours = ours.with_params(process_weights(ours.params))
    wanted = {
        name: value.float().numpy()
        for name, value in expected.items()
        if value.is_floating_point() and value.shape[0] == len(ids)
    }
    logits, cache = ours.run_with_cache(ids, ["*"])
    # Processed, TransformerLens adds the final norm's bias behind the unembedding; here it stays in front of it.
    behind = ("ln_final.hook_out", "unembed.hook_in", "unembed.hook_out") if processing else ()
    shared = [name for name in wanted if name in cache and name not in behind]
    assert len(shared) > 15 * ours.config.n_layer
    for name in shared:
        np.testing.assert_allclose(cache[name], wanted[name], atol=2e-4, err_msg=name)
    if not processing:  # centred logits differ from the model's by a constant a position
        np.testing.assert_allclose(logits, expected_logits.numpy(), atol=2e-4)


def test_attribution_patching_by_node_and_by_edge(tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    script = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "make_golden_transformer_lens.py"))
    folder = save(reference_model(4, n_layer=3), tmp_path)
    words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(97)}, unk_token="<0>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<0>", bos_token="<0>").save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    bridge.enable_compatibility_mode(no_processing=True)
    ids = random_ids(2, 7, seed=11)
    theirs = script["attributions"](bridge, *(torch.tensor(row[None]) for row in ids))

    ours, metric = Model.from_pretrained(folder), logit_difference(5, 9)
    found = attribution.nodes(ours, *ids, metric, names=["embed", "*.attn.z", "*.mlp_out"])
    got = {"embed": found.scores["embed"], "z": found.stack("attn.z"), "mlp_out": found.stack("mlp_out")}
    got["edges"] = attribution.edges(ours, *ids, metric).scores
    for name, x in theirs.items():
        np.testing.assert_allclose(got[name], x, atol=1e-4 * np.abs(x).max(), err_msg=name)

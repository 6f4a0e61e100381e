"""The backward lens: torch's gradients of what MLPs wrote, their matrices' gradients, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gradient_reference import ours
from reference import random_ids, reference_model

from gpt2_np.cli import cli
from gpt2_np.gradients import cross_entropy
from gpt2_np.internals.backward_lens import backward_lens

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_would_be_written_is_the_direction_of_torchs_gradient() -> None:
    reference = reference_model(5).double()
    model, ids = ours(reference), random_ids(1, 9, seed=5)[0]
    outs, handles = [], []
    for block in reference.transformer.h:
        handles.append(
            block.mlp.register_forward_hook(lambda module, inputs, out: (out.retain_grad(), outs.append(out))[0])
        )
    loss = torch.nn.functional.cross_entropy(reference(torch.tensor(ids)[None]).logits[0, :-1], torch.tensor(ids[1:]))
    loss.backward()
    for handle in handles:
        handle.remove()
    found = backward_lens(model, ids, cross_entropy())
    np.testing.assert_allclose(found.value, loss.item(), rtol=1e-12)
    norm, head = reference.transformer.ln_f, reference.lm_head
    for layer, out in enumerate(outs):
        descent = -out.grad[0, :-1]
        with torch.no_grad():
            unit = descent / descent.norm(dim=-1, keepdim=True) * 48**0.5
            expected = head(norm(unit)).numpy()
        np.testing.assert_allclose(found.written.logits[layer, :-1], expected, atol=1e-9)
    params = model.run_with_gradients(ids, cross_entropy(), [], parameters=True).params
    assert params is not None
    run = model.run_with_gradients(ids, cross_entropy(), ["*.mlp.post", "*.mlp_out", "*.ln2.out"])
    for layer in range(3):
        post, written = run.cache[f"blocks.{layer}.mlp.post"][0], run.grads["mlp_out", layer][0]
        sizes = [np.linalg.norm(np.outer(one, other)) for one, other in zip(post, written, strict=True)]
        np.testing.assert_allclose(found.strength[layer], sizes, atol=1e-12)
        summed = sum(np.outer(one, other) for one, other in zip(post, written, strict=True))
        np.testing.assert_allclose(params.h[layer].mlp.c_proj.weight, summed, atol=1e-12)
        with torch.no_grad():
            heard = head(norm(torch.tensor(run.cache[f"blocks.{layer}.ln2.out"]))).numpy()[0]
        np.testing.assert_allclose(found.heard.logits[layer], heard, atol=1e-9)
    with pytest.raises(ValueError, match="one prompt, got 2 rows"):
        backward_lens(model, np.stack([ids, ids]), cross_entropy())


def test_the_command_names_the_answer_that_is_learned(tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> str:
        given = ["internals", "backward", "The king lost his", *(str(one) for one in arguments)]
        return CliRunner().invoke(cli, given, catch_exceptions=False, standalone_mode=False).stdout

    found = json.loads(run("--answer", " fish", "--json", "--out", tmp_path / "backward.png"))
    assert [row["layer"] for row in found["layers"]] == list(range(8))
    assert found["layers"][-1]["writes"][0] == " fish"
    assert found["layers"][-1]["token"] == " his"
    assert (tmp_path / "backward.png").read_bytes().startswith(b"\x89PNG")
    table = run("--answer", " fish", "--count", "2")
    assert "7 at ' his': writes ' fish'" in table
    with pytest.raises(ValueError, match="an answer must be one token"):
        run("--answer", " fish fish")

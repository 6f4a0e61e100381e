"""Beside SAELens itself, where it is installed: other weights than the golden file's, its losses, and what it reads.

pip install torch sae-lens && pytest tests/test_saelens_live.py
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sae_lens = pytest.importorskip(
    "sae_lens",
    reason="pip install 'gpt2-np[saes]' brings SAELens; its answers to one set of weights are in tests/golden",
)
import torch  # noqa: E402

from gpt2_np.internals import dictionaries  # noqa: E402
from gpt2_np.internals.dictionaries.training.losses import loss_and_gradients  # noqa: E402
from gpt2_np.internals.dictionaries.training.settings import Settings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # SAELens has some of its own
SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "make_golden_dictionaries.py"))
NAMES = list(SCRIPT["kinds"]())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [50, 51])
def test_other_weights_and_what_we_save_is_read_by_saelens(name: str, seed: int, tmp_path: Path) -> None:
    sae, method = SCRIPT["kinds"]()[name]
    SCRIPT["randomised"](sae, seed)
    getattr(sae, method)(tmp_path / "theirs")
    sae.eval()
    used = SCRIPT["as_used"](tmp_path / "theirs", sae, method, tmp_path / "for use")
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(seed))
    given = x.reshape(3, 5, 3, 4) if used.cfg.reshape_activations == "hook_z" else x
    expected = SCRIPT["expected"](used, given)
    ours = dictionaries.load(tmp_path / "theirs")
    np.testing.assert_allclose(ours.encode(expected["x"]), expected["features"], atol=1e-5)
    np.testing.assert_allclose(ours.reconstruct(expected["x"]), expected["reconstruction"], atol=1e-5)
    np.testing.assert_allclose(
        ours.gradient(expected["x"], expected["reconstruction"]), expected["gradient"], atol=2e-4
    )
    dictionaries.save(ours, tmp_path / "ours")
    again = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    assert again.cfg.metadata.hook_name == used.cfg.metadata.hook_name
    with torch.no_grad():
        np.testing.assert_allclose(again(given).numpy(), expected["reconstruction"], atol=1e-5)


def test_the_bundled_dictionary_is_read_by_saelens() -> None:
    folder = dictionaries.releases.BUNDLED["tales"]
    theirs, ours = sae_lens.SAE.load_from_disk(folder), dictionaries.load("tales")
    x = np.random.default_rng(0).normal(0, 0.3, (20, 320)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(ours.encode(x), theirs.encode(torch.tensor(x)).numpy(), atol=1e-4)


def losses(architecture: str, seed: int) -> tuple[Any, Settings]:
    """One of SAELens's training dictionaries with directions of unit length, and our settings of the same."""
    base: dict[str, Any] = {"d_in": 12, "d_sae": 40, "decoder_init_norm": 1.0}
    if architecture in ("topk", "batchtopk"):
        base |= {"k": 4, "aux_loss_coefficient": 0.7, "rescale_acts_by_decoder_norm": False}
        if architecture == "topk":
            sae = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(**base))
        else:
            sae = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**base))
        chosen = Settings(architecture, 40, 4, aux_loss_coefficient=0.7)
    elif architecture == "standard":
        sae = sae_lens.StandardTrainingSAE(sae_lens.StandardTrainingSAEConfig(**base, l1_coefficient=0.3))
        chosen = Settings("standard", 40, l1_coefficient=0.3)
    else:
        sae = sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(
                **base, l0_coefficient=0.2, jumprelu_bandwidth=0.3, pre_act_loss_coefficient=0.1
            )
        )
        chosen = Settings("jumprelu", 40, l0_coefficient=0.2, jumprelu_bandwidth=0.3, aux_loss_coefficient=0.1)
    SCRIPT["randomised"](sae, seed)
    with torch.no_grad():
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return sae, chosen


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "standard", "jumprelu"])
@pytest.mark.parametrize("dead", [0, 3, 25])
def test_losses_and_gradients_are_those_of_saelens(architecture: str, dead: int) -> None:
    from sae_lens.saes.sae import TrainStepInput

    sae, chosen = losses(architecture, 5)
    if architecture == "batchtopk":
        sae.topk_threshold.fill_(0.5)
    x, mask = torch.randn(32, 12, generator=torch.Generator().manual_seed(1)), torch.arange(40) < dead
    coefficients = {"l1": chosen.l1_coefficient, "l0": chosen.l0_coefficient}
    output = sae.training_forward_pass(TrainStepInput(x, coefficients, mask, 0, False))
    output.loss.backward()
    weights = {name: p.detach().numpy() for name, p in sae.named_parameters()}
    if architecture == "jumprelu":  # SAELens learns the threshold itself, here its logarithm learns
        weights["log_threshold"] = np.log(weights.pop("threshold"))
    found = loss_and_gradients(weights, x.numpy(), x.numpy(), chosen, chosen.coefficient, mask.numpy())
    assert found.loss == pytest.approx(output.loss.item(), rel=1e-5)
    if architecture == "batchtopk":  # a hundredth of the way to the least feature that fired
        assert sae.topk_threshold.item() == pytest.approx(0.5 + 0.01 * (found.least - 0.5), rel=1e-6)
    for name, parameter in sae.named_parameters():
        gradient = parameter.grad.numpy()
        if name == "threshold":
            name, gradient = "log_threshold", gradient * np.exp(weights["log_threshold"])
        if name == "W_dec":  # along the directions nothing is learned
            gradient = gradient - (gradient * weights[name]).sum(1, keepdims=True) * weights[name]
        np.testing.assert_allclose(found.gradients[name], gradient, rtol=1e-4, atol=1e-5, err_msg=name)

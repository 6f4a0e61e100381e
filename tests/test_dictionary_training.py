"""Dictionaries in training, step by step beside torch's autograd and Adam; runs that stop and go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_transformer_lens import as_loaded

from gpt2_np.internals import dictionaries
from gpt2_np.internals.capture import Captured, capture_corpus
from gpt2_np.internals.dictionaries.training import Settings, train
from gpt2_np.internals.dictionaries.training.losses import loss_and_gradients
from gpt2_np.internals.dictionaries.training.settings import TRAINED
from gpt2_np.internals.dictionaries.training.vectors import Vectors
from gpt2_np.training import pace
from gpt2_np.training.gradient import clipping, norm
from gpt2_np.training.loop import Stopped

D, O, F, N = 10, 8, 30, 64
READS, WRITES = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"


def settings(architecture: str, **more: Any) -> Settings:
    some = {"k": 4, "l1_coefficient": 0.3, "l0_coefficient": 0.2, "jumprelu_bandwidth": 0.4, "warmup_steps": 3}
    base = {"architecture": architecture, "d_sae": F, "batch_size": N, "learning_rate": 0.01, "steps": 40}
    return Settings(**(base | some | {"aux_loss_coefficient": 0.5, "backend": "numpy"} | more))


def start(chosen: Settings, seed: int = 0) -> dict[str, np.ndarray]:
    random, width = np.random.default_rng(seed), O if chosen.is_transcoder else D
    W_dec = random.normal(size=(F, width))
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    weights = {"W_enc": random.normal(size=(D, F)) * 0.4, "W_dec": W_dec, "b_enc": random.normal(size=F) * 0.1}
    weights["b_dec"] = random.normal(size=width) * 0.1
    if chosen.activation == "jumprelu":
        weights["log_threshold"] = random.normal(size=F) * 0.3 - 1
    if chosen.has_skip:
        weights["W_skip"] = random.normal(size=(width, D)) * 0.1
    return weights


class Rectangle(torch.autograd.Function):
    """JumpReLU and the step, whose threshold learns through a rectangle: Rajamanoharan et al. 2024, eq. 11 and 12."""

    @staticmethod
    def forward(ctx: Any, h: Any, threshold: Any, bandwidth: float, step: bool) -> Any:
        ctx.save_for_backward(h, threshold)
        ctx.bandwidth, ctx.step = bandwidth, step
        return (h > threshold).to(h) * (1 if step else h)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        h, threshold = ctx.saved_tensors
        near = ((h - threshold).abs() < ctx.bandwidth / 2).to(h)
        height = 1.0 if ctx.step else threshold
        of_threshold = (-height / ctx.bandwidth * near * gradient).sum(0)
        return (None if ctx.step else gradient * (h > threshold)), of_threshold, None, None


def torch_loss(w: dict[str, Any], x: Any, y: Any, chosen: Settings, coefficient: float, dead: Any) -> Any:
    """The loss as the papers and SAELens have it, with the directions' lengths where SAELens multiplies by them."""
    h = (x if chosen.is_transcoder else x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    lengths = w["W_dec"].norm(dim=1)
    if chosen.activation == "topk":
        top = h.topk(chosen.k, dim=-1)
        f = torch.zeros_like(h).scatter(-1, top.indices, top.values.relu())
    elif chosen.activation == "batchtopk":
        top = h.relu().flatten().topk(chosen.k * len(h))
        f = torch.zeros(h.numel(), dtype=h.dtype).scatter(-1, top.indices, top.values).reshape(h.shape)
    elif chosen.activation == "jumprelu":
        threshold = w["log_threshold"].exp()
        f = Rectangle.apply(h, threshold, chosen.jumprelu_bandwidth, False)
    else:
        f = h.relu()
    out = f @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if chosen.has_skip else 0)
    loss = (out - y).pow(2).sum(-1).mean()
    if chosen.activation == "relu":
        loss = loss + coefficient * (f * lengths).sum(-1).mean()
    elif chosen.activation == "jumprelu":
        loss = loss + coefficient * Rectangle.apply(h, threshold, chosen.jumprelu_bandwidth, True).sum(-1).mean()
        pull = ((threshold - h).relu() * dead * lengths).sum(-1).mean()
        loss = loss + (chosen.aux_loss_coefficient * pull if dead.any() else 0)
    elif dead.any():
        count = min(int(dead.sum()), out.shape[-1] // 2)
        top = torch.where(dead, h, -torch.inf).topk(count, dim=-1)
        acts = torch.zeros_like(h).scatter(-1, top.indices, top.values)
        scale = chosen.aux_loss_coefficient * min(int(dead.sum()) / (out.shape[-1] // 2), 1.0)
        loss = loss + scale * (acts @ w["W_dec"] - (y - out).detach()).pow(2).sum(-1).mean()
    return loss, f


@pytest.mark.parametrize("architecture", TRAINED)
def test_every_step_is_that_of_autograd_and_adam(architecture: str) -> None:
    chosen, random = settings(architecture, dead_feature_window=2), np.random.default_rng(1)
    ours = start(chosen)
    theirs = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in ours.items()}
    adam = torch.optim.Adam(theirs.values(), lr=chosen.learning_rate)
    state, silent, revived = None, np.zeros(F, np.int64), 0
    for step in range(25):
        x = random.normal(size=(N, D)) + 0.3
        y = random.normal(size=(N, O)) if chosen.is_transcoder else x
        dead = silent > chosen.dead_feature_window
        dead[:2] |= step > 10  # so that there are some in every architecture
        found = loss_and_gradients(ours, x, y, chosen, chosen.coefficient, dead)

        mask = torch.tensor(dead)
        loss, f = torch_loss(theirs, torch.tensor(x), torch.tensor(y), chosen, chosen.coefficient, mask)
        adam.zero_grad()
        loss.backward()
        grad, W = theirs["W_dec"].grad, theirs["W_dec"].detach()
        assert grad is not None
        grad -= (grad * W).sum(1, keepdim=True) * W
        assert found.loss == pytest.approx(loss.item(), rel=1e-9)
        assert found.l0 == pytest.approx((f != 0).sum().item() / N)
        assert found.least == pytest.approx(f[f != 0].min().item())
        np.testing.assert_array_equal(found.fired, (f != 0).any(0).numpy())
        for name, gradient in found.gradients.items():
            np.testing.assert_allclose(gradient, theirs[name].grad.numpy(), atol=1e-9, err_msg=f"{step} {name}")  # type: ignore[union-attr]
        length = norm(found.gradients)
        assert length == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)))
        adam.step()
        with torch.no_grad():
            theirs["W_dec"] /= theirs["W_dec"].norm(dim=1, keepdim=True)
        grads = {name: found.gradients[name] for name in ours}
        ours, state = chosen.adamw().step(ours, grads, state, scale=clipping(length, 1.0))
        ours["W_dec"] /= np.linalg.norm(ours["W_dec"], axis=1, keepdims=True)
        for name, x_ in ours.items():
            np.testing.assert_allclose(x_, theirs[name].detach().numpy(), atol=1e-8, err_msg=f"{step} {name}")
        silent = np.where(found.fired, 0, silent + 1)
        revived += found.auxiliary > 0
    assert revived > 5 or chosen.activation == "relu"


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """What a small model makes of random ids: 40 texts in several chunks."""
    random = np.random.default_rng(2)
    texts = [random.integers(0, 31, 16).tolist() for _ in range(40)]
    folder = tmp_path_factory.mktemp("captured")
    names = ["blocks.1.resid_pre", "blocks.0.ln2.normalized", "blocks.0.mlp_out", "blocks.1.attn.z"]
    return capture_corpus(as_loaded(), texts, names, folder, chunk_bytes=20_000)


SMALL: dict[str, Any] = {
    "backend": "numpy",
    "d_sae": 24,
    "k": 3,
    "batch_size": 50,
    "warmup_steps": 2,
    "save_steps": 10,
    "report_steps": 5,
}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "skip_transcoder", "batchtopk_transcoder"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(captured: Captured, architecture: str, tmp_path: Path) -> None:
    hooks = (READS, WRITES) if "transcoder" in architecture else ("blocks.1.hook_resid_pre",)
    words = SMALL | {"architecture": architecture, "steps": 30, "dead_feature_window": 4, "group_mib": 1}
    whole = train(captured, tmp_path / "whole", *hooks, **words)

    def stop(report: Any) -> None:
        if report.step == 17:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="stopped after step 17"):
        train(captured, tmp_path / "parts", *hooks, **words, report=stop)
    other = train(captured, tmp_path / "parts", *hooks, **words, resume=True)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "parts")
    loaded = dictionaries.load(tmp_path / "whole")
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor, other.tensors[name])
        np.testing.assert_array_equal(tensor, loaded.tensors[name])
    again = train(captured, tmp_path / "whole", *hooks, **words, resume=True)  # nothing is left to do
    np.testing.assert_array_equal(again.tensors["W_dec"], whole.tensors["W_dec"])
    lines = (tmp_path / "whole" / "loss.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, range(5, 31, 5))]


def test_a_trained_dictionary_explains_more_than_it_did(captured: Captured, tmp_path: Path) -> None:
    texts = [captured.ids(text).tolist() for text in range(40)]
    found = []
    for steps in (1, 300):
        words = SMALL | {"steps": steps, "learning_rate": 0.01}
        one = train(captured, tmp_path / str(steps), "blocks.1.hook_resid_pre", **words)
        found.append(dictionaries.evaluate(as_loaded(), one, texts))
        np.testing.assert_allclose(one.config.k, 3)
    assert found[0].explained_variance < 0.45 < 0.6 < found[1].explained_variance
    assert found[1].l0 <= 3
    assert found[1].loss_spliced < found[0].loss_spliced
    heads = train(captured, tmp_path / "z", "blocks.1.attn.hook_z", **SMALL, steps=3)
    assert heads.config.reshape_activations == "hook_z"
    dictionaries.spliced(as_loaded(), heads)(texts[0])


def test_the_first_step_counts_for_no_other_step_s_speed(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reports = iter([0, 90, 100, 110]), []  # before the first step, and after each
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    train(captured, tmp_path / "run", "blocks.1.hook_resid_pre", report=reports.append, **SMALL | {"steps": 3})
    assert [one.seconds_left for one in reports] == [180, 10, 0]


def test_what_a_batch_decided_is_saved_as_jumprelu(captured: Captured, tmp_path: Path) -> None:
    texts = [captured.ids(text).tolist() for text in range(40)]
    words = SMALL | {"steps": 200, "learning_rate": 0.01, "lr_scheduler_type": "linear"}
    one = train(captured, tmp_path, READS, WRITES, architecture="batchtopk_transcoder", **words)
    assert one.config.architecture == "jumprelu_transcoder"
    assert len(set(one.tensors["threshold"].tolist())) == 1
    assert dictionaries.evaluate(as_loaded(), dictionaries.load(tmp_path), texts).l0 == pytest.approx(3, rel=0.1)
    about = json.loads((tmp_path / "cfg.json").read_text())
    assert about["metadata"]["training"]["architecture"] == "batchtopk_transcoder"


def test_batches_are_every_vector_once_an_epoch_and_a_function_of_the_step(captured: Captured) -> None:
    def vectors() -> Vectors:
        return Vectors(captured, "blocks.1.resid_pre", "blocks.1.resid_pre", skip=1, seed=3, group_bytes=30_000)

    one, other = vectors(), vectors()
    assert len(one) == 40 * 15
    assert len(one.groups(0)) > 1
    assert one.groups(0) != one.groups(1)
    steps = [7, 0, 30, 12, 7]
    for step in steps:
        np.testing.assert_array_equal(one.batch(step, 5)[0], vectors().batch(step, 5)[0])
    epoch = np.concatenate([other.batch(step, 5)[0] for step in range(120)])
    every = np.concatenate([captured[text, "blocks.1.resid_pre"][1:] for text in range(40)])
    assert sorted(map(bytes, epoch)) == sorted(map(bytes, every))
    x, y = Vectors(captured, READS, WRITES, skip=0, seed=0, group_bytes=1 << 20).batch(0, 4)
    texts = np.concatenate([captured[text, READS] for text in range(40)])
    there = [int(np.flatnonzero((texts == row).all(axis=1))[0]) for row in x]
    np.testing.assert_array_equal(y, np.concatenate([captured[text, WRITES] for text in range(40)])[there])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"architecture": "gated"}, "architecture must be one of topk, .* to be trained, got 'gated'"),
        ({"k": 25}, "k must be at most d_sae, 24, got 25"),
        ({"k": 25, "architecture": "batchtopk"}, "k must be at most d_sae, 24, got 25"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, got 0.0"),
        ({"l1_coefficient": -1.0}, "l1_coefficient must be at least 0 and finite, got -1.0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 5000}, "batch_size must be at most .*, the vectors at hand, got 5000"),
        ({"nothing": 1}, "nothing is no setting of training"),
        ({"architecture": "transcoder"}, "hook_name_out is what a transcoder predicts, got None for transcoder"),
        ({"learning_rate": 1e30, "normalize": False, "steps": 9}, "try a lower learning_rate"),
    ],
)
def test_what_a_run_cannot_be_is_said(captured: Captured, words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(captured, tmp_path / "out", "blocks.1.hook_resid_pre", **(SMALL | {"steps": 2} | words))


def test_a_folder_in_use_another_capture_and_other_settings_are_refused(captured: Captured, tmp_path: Path) -> None:
    train(captured, tmp_path, "blocks.1.hook_resid_pre", **SMALL, steps=2)
    with pytest.raises(ValueError, match="is in use"):
        train(captured, tmp_path, "blocks.1.hook_resid_pre", **SMALL, steps=2)
    with pytest.raises(ValueError, match="goes on with d_sae 24"):
        train(captured, tmp_path, "blocks.1.hook_resid_pre", **(SMALL | {"d_sae": 25}), steps=2, resume=True)
    with pytest.raises(ValueError, match="needs the capture that the run began with"):
        train(captured, tmp_path, "blocks.0.hook_mlp_out", **SMALL, steps=2, resume=True)
    with pytest.raises(ValueError, match=r"blocks.0.resid_pre is not in this capture; it holds"):
        train(captured, tmp_path / "new", "blocks.0.hook_resid_pre", **SMALL, steps=2)
    about = json.loads((tmp_path / "cfg.json").read_text())
    assert about["metadata"]["training"]["steps_done"] == 2

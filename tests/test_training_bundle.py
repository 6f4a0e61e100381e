"""Training bundles: a right implementation passes in float32, and each planted mistake is named at its first tensor."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.gradients import backward, derivatives, threaded
from gpt2_np.parity import bundle, training
from gpt2_np.training import gradient, update
from gpt2_np.training.tree import leaves

MODEL = Path(__file__).parent / "golden/bundle/model"


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's part on training."""
    folder = tmp_path_factory.mktemp("bundle")
    training.export(folder, GPT2.from_pretrained(MODEL, dtype="float64", backend="numpy"))
    return folder


def wrong(truth: Path, folder: Path, **means: Any) -> list[str]:
    training.answer(folder, truth, GPT2.from_pretrained(MODEL, backend="numpy"), **means)
    return [check.name for check in training.check(truth, folder) if not check.passed]


def test_ours_passes_in_float32(truth: Path, tmp_path: Path) -> None:
    assert wrong(truth, tmp_path) == []
    assert set(load_file(tmp_path / training.TENSORS)) >= set(training.read(truth)["order"])
    assert [check.name for check in bundle.check(truth, tmp_path)] == training.read(truth)["order"]


def test_the_truths_are_torch_s(truth: Path) -> None:
    about, tensors = training.read(truth), load_file(truth / training.TENSORS)
    model = GPT2LMHeadModel.from_pretrained(MODEL, dtype=torch.float64)
    ids, labels = torch.tensor(about["ids"]), torch.tensor(about["labels"])
    settings = {key: about["optimizer"][key] for key in ("betas", "weight_decay")}
    optimizer = torch.optim.AdamW(
        model.parameters(), about["optimizer"]["learning_rate"], eps=about["optimizer"]["epsilon"], **settings
    )
    named = {name.removeprefix("transformer."): x for name, x in model.named_parameters()}
    for step in range(1, 11):
        loss = torch.nn.functional.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten())
        assert loss.item() == pytest.approx(tensors["adamw/losses"][step - 1], rel=1e-9)
        optimizer.zero_grad()
        loss.backward()
        if step == 1:
            for name, x in named.items():
                np.testing.assert_allclose(tensors[f"parameter/{name}"], x.grad.numpy(), atol=1e-10)
        optimizer.step()
        norms = [named[name].detach().norm().item() for name in about["parameters"]]
        np.testing.assert_allclose(tensors[f"adamw/norms/{step}"], norms, rtol=1e-9)


def one_share(patch: pytest.MonkeyPatch) -> None:
    right = backward.Learned.rows

    def rows(self: Any, name: str, *arguments: Any) -> None:
        if name != "wte.weight":
            right(self, name, *arguments)

    patch.setattr(backward.Learned, "rows", rows)


def exact_gelu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(threaded, "activate", lambda g, x, name, parameters=(): derivatives.activate(g, x, "gelu"))


def no_mean_term(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(threaded, "centred", lambda gradient: gradient)


def no_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(threaded, "attention_scores", lambda g, q, k, scale: derivatives.attention_scores(g, q, k, 1.0))


def labels_off_by_one(patch: pytest.MonkeyPatch) -> None:
    def shifted(self: Any, ids: Any, shape: Any, V: int) -> np.ndarray:
        return np.where(np.asarray(self.labels) == -100, -100, np.roll(self.labels, 1, axis=1) % V)

    patch.setattr(gradient.NextIds, "targets", shifted)


def sum_for_mean(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "NextIds", lambda labels, tokens: gradient.NextIds(labels, 1))


def no_bias_correction(patch: pytest.MonkeyPatch) -> None:
    right = update.constants

    def constants(step: int, rate: float, *others: Any) -> update.Constants:
        return right(step, rate, *others)._replace(rate=rate, root=1.0)

    patch.setattr(update, "constants", constants)


def decay_in_the_gradient(patch: pytest.MonkeyPatch) -> None:
    right = update.adamw

    def adamw(parameter: Any, gradient: Any, mean: Any, square: Any, c: update.Constants) -> None:
        right(parameter, gradient + 0.1 * parameter, mean, square, c._replace(kept=1.0))

    patch.setattr(update, "adamw", adamw)


def epsilon_in_the_root(patch: pytest.MonkeyPatch) -> None:
    def adamw(parameter: Any, gradient: Any, mean: Any, square: Any, c: update.Constants) -> None:
        parameter *= c.kept
        mean += (gradient - mean) * (1 - c.beta1)
        square += (gradient**2 - square) * (1 - c.beta2)
        parameter -= c.rate * mean / np.sqrt(square / c.root**2 + c.epsilon)

    patch.setattr(update, "adamw", adamw)


def no_division(patch: pytest.MonkeyPatch) -> None:
    def each_alone(model: Any, batches: Any) -> tuple[float, Any]:
        loss, _ = gradient.loss_and_gradients(model, batches)
        grads = [gradient.loss_and_gradients(model, [one])[1] for one in batches]
        for more in grads[1:]:
            for total, x in zip(leaves(grads[0]), leaves(more), strict=True):
                total += x
        return loss, grads[0]

    patch.setitem(training.tensors.__kwdefaults__, "gradients", each_alone)


def no_cache_offset(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "cached", lambda model, rows: np.stack([model(row[-1:])[-1] for row in rows]))


# Each mistake and the first tensor that it makes wrong: docs/bundles.md has the same table.
MISTAKES: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (one_share, "parameter/wte.weight"),
    (exact_gelu, "activation/blocks.1.mlp.pre"),
    (no_mean_term, "activation/ln_final.in"),
    (no_scale, "activation/blocks.1.attn.k"),
    (labels_off_by_one, "loss"),
    (sum_for_mean, "loss"),
    (no_bias_correction, "adamw/norms/1"),
    (decay_in_the_gradient, "adamw/norms/1"),
    (epsilon_in_the_root, "adamw/norms/1"),
    (no_division, "adamw/norms/1"),
    (no_cache_offset, "rows/cached"),
]


@pytest.mark.parametrize(("mistake", "first"), MISTAKES, ids=lambda one: getattr(one, "__name__", one))
def test_a_mistake_is_named(
    mistake: Callable[[pytest.MonkeyPatch], None],
    first: str,
    truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mistake(monkeypatch)
    assert wrong(truth, tmp_path)[:1] == [first]


def test_the_page_has_the_table_of_mistakes() -> None:
    page = (Path(__file__).parent.parent / "docs/bundles.md").read_text()
    for _, first in MISTAKES:
        assert f" | `{first}` |\n" in page


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b, t: (b / training.ABOUT).write_text("[]"), "must be version 1 of 'gpt2_np training bundle'"),
        (lambda b, t: edit(b, lambda a: a.update(order=None)), "order must be a list, got None"),
        (lambda b, t: edit(b, lambda a: a.update(tolerance=2)), "tolerance must be between 0 and 1, got 2"),
        (lambda b, t: (t / training.TENSORS).write_bytes(b"x"), "is not a sound safetensors file"),
        (lambda b, t: save_file({"x": np.zeros(1)}, t / training.TENSORS), "shares no tensor with the bundle"),
        (
            lambda b, t: save_file({"loss": np.zeros(1)}, b / training.TENSORS),
            "lacks rows/logits, which training.json's",
        ),
        (
            lambda b, t: save_file(
                load_file(b / training.TENSORS) | {"loss": np.full(1, np.nan)}, b / training.TENSORS
            ),
            "loss must hold numbers or -inf, got NaN",
        ),
        (
            lambda b, t: save_file({"loss": np.zeros(1, "i8")}, t / training.TENSORS),
            "loss must be F32, F16, .*, got I64",
        ),
        (lambda b, t: save_file({"loss": np.zeros(2)}, t / training.TENSORS), r"loss must be \(1,\), got \(2,\)"),
    ],
)
def test_spoilt_files_are_one_line(spoil: Callable, message: str, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "t").mkdir()
    for name in (training.ABOUT, training.TENSORS):
        (tmp_path / "b" / name).write_bytes((truth / name).read_bytes())
    save_file({"loss": np.zeros(1)}, tmp_path / "t" / training.TENSORS)
    spoil(tmp_path / "b", tmp_path / "t")
    with pytest.raises(ValueError, match=message) as error:
        list(training.check(tmp_path / "b", tmp_path / "t"))
    assert "\n" not in str(error.value)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """A bundle's training.json after `change`."""
    about = json.loads((folder / training.ABOUT).read_text())
    change(about)
    (folder / training.ABOUT).write_text(json.dumps(about))


def test_not_a_number_is_a_mismatch(truth: Path, tmp_path: Path) -> None:
    save_file({"loss": np.array([math.nan])}, tmp_path / training.TENSORS)
    (check,) = [one for one in training.check(truth, tmp_path) if one.verdict != "left out"]
    assert (check.verdict, check.where) == ("mismatch", "[0]")
    assert re.fullmatch(r"nan where \S+ was expected", check.note)

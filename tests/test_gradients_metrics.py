"""Metrics: their values and gradients against torch's, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import ours
from reference import random_ids, reference_model

from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy, kl_divergence, log_probability, logit_difference
from gpt2_np.internals.variants import run_variants
from gpt2_np.weights.hub import BUNDLED

B, T, V = 3, 6, 19
IDS = random_ids(B, T, V)
LOGITS = np.random.default_rng(1).standard_normal((B, T, V)) * 3
REFERENCE = np.random.default_rng(2).standard_normal((B, T, V)) * 3
ROWS = np.arange(B)


def torch_cross_entropy(logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    losses = [
        torch.nn.functional.cross_entropy(row[:-1], torch.tensor(label[1:]))
        for row, label in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses)


LABELS = np.where(np.arange(T) % 3 == 1, -100, random_ids(B, T, V, seed=5))
A, C, PLACES = np.array([3, 0, 18]), np.array([4, 4, 1]), np.array([0, -1, 3])
CASES: dict[str, tuple[Any, Any]] = {
    "cross-entropy": (cross_entropy(), lambda x: torch_cross_entropy(x, IDS)),
    "labels": (cross_entropy(LABELS), lambda x: torch_cross_entropy(x, LABELS)),
    "logit difference": (logit_difference(3, 4), lambda x: x[:, -1, 3] - x[:, -1, 4]),
    "same token": (logit_difference(3, 3), lambda x: 0 * x[:, -1, 3]),
    "each row's own": (logit_difference(A, C, PLACES), lambda x: x[ROWS, PLACES, A] - x[ROWS, PLACES, C]),
    "log-probability": (log_probability(7, 2), lambda x: x[:, 2].log_softmax(-1)[:, 7]),
    "of each": (log_probability(A.tolist()), lambda x: x[:, -1].log_softmax(-1)[ROWS, A]),
    "divergence": (
        kl_divergence(REFERENCE, 1),
        lambda x: torch.nn.functional.kl_div(
            x[:, 1].log_softmax(-1), torch.tensor(REFERENCE[:, 1]).log_softmax(-1), reduction="none", log_target=True
        ).sum(-1),
    ),
    "of one": (
        kl_divergence(REFERENCE[0, 0]),
        lambda x: torch.nn.functional.kl_div(
            x[:, -1].log_softmax(-1), torch.tensor(REFERENCE[0, 0]).softmax(-1), reduction="none"
        ).sum(-1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name: str) -> None:
    metric, theirs = CASES[name]
    x = torch.tensor(LOGITS, requires_grad=True)
    expected = theirs(x)
    expected.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(metric.value(LOGITS, IDS), expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(metric.gradient(LOGITS, IDS), x.grad.numpy(), rtol=1e-12, atol=1e-15)
    narrow = LOGITS.astype(np.float32)
    assert metric.gradient(narrow, IDS).dtype == np.float32
    assert metric.value(narrow, IDS).dtype == np.float64
    np.testing.assert_allclose(metric.value(narrow, IDS), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metric.gradient(narrow, IDS), x.grad.numpy(), atol=2e-6)


def test_the_loss_is_transformers_own_mean() -> None:
    reference = reference_model()
    ids = random_ids(1, 12)
    theirs = reference(torch.tensor(ids), labels=torch.tensor(ids)).loss.item()
    run = ours(reference).run_with_gradients(ids, cross_entropy(), ())
    np.testing.assert_allclose(run.value, [theirs], rtol=1e-6)


def test_divergence_from_oneself_is_zero() -> None:
    metric = kl_divergence(LOGITS)
    np.testing.assert_allclose(metric.value(LOGITS), 0, atol=1e-14)
    np.testing.assert_allclose(metric.gradient(LOGITS), 0, atol=1e-15)
    np.testing.assert_allclose(kl_divergence(LOGITS[0]).value(LOGITS[:1]), 0, atol=1e-14)


def test_sweeps_take_the_same_objects() -> None:
    model = ours(reference_model())
    metric = logit_difference(3, 4)
    edit = {"blocks.1.mlp_out": np.zeros((1, 5, 48), np.float32)}
    found = run_variants(model, IDS[0, :5], [{}, edit], metric)
    logits = np.concatenate([model(IDS[:1, :5]), model.run_with_edits(IDS[:1, :5], edit)[0]])
    np.testing.assert_allclose(found, metric(logits), rtol=1e-6)


def test_tokens_may_be_texts(small: Path) -> None:
    model = GPT2.from_pretrained()
    text, other = " the", " a"
    ids = [model.tokenizer.encode(one)[0] for one in (text, other)]
    named = model.run_with_gradients([[5, 6, 7]], logit_difference(text, other), "embed")
    numbered = model.run_with_gradients([[5, 6, 7]], logit_difference(*ids), "embed")
    np.testing.assert_array_equal(named.grads["embed"], numbered.grads["embed"])
    several = log_probability([text, other])
    np.testing.assert_array_equal(several.with_tokens(model.tokenizer.encode).tokens[0], ids)
    with pytest.raises(ValueError, match="must be one token of the vocabulary, got "):
        model.run_with_gradients([5], log_probability(" the the the the"), ())
    with pytest.raises(ValueError, match="needs a model with a tokenizer: give its id instead of ' the'"):
        logit_difference(text, other)(LOGITS)
    with pytest.raises(ValueError, match="no tokenizer"):
        GPT2(model.params, model.config).run_with_gradients([5], log_probability(text), ())


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (logit_difference(3, 19), "ids must be between 0 and 18, got 19"),
        (logit_difference(-1, 3), "ids must be between 0 and 18, got -1"),
        (log_probability(3, 6), "position must be between -6 and 5, got 6"),
        (log_probability(3, -7), "position must be between -6 and 5, got -7"),
        (log_probability([1, 2]), "a token must be a whole number, or one for each of 3 rows"),
        (log_probability(1.5), "a token must be a whole number"),
        (log_probability(1, [0.5, 1, 2]), "position must be a whole number"),
        (kl_divergence(np.zeros(7)), r"reference_logits must be \(V,\), \(T, V\) or \(B, T, V\).*got \(7,\)"),
        (kl_divergence(np.zeros((2, T, V))), r"got \(2, 6, 19\)"),
        (kl_divergence(np.zeros((3, V))), r"got \(3, 19\)"),
        (cross_entropy(IDS[:2]), r"labels must be whole numbers of the ids' shape \(3, 6\), got int64 \(2, 6\)"),
        (cross_entropy(IDS * 0.5), "labels must be whole numbers"),
        (cross_entropy(IDS - 20), "labels must be between 0 and 18, or -100 to be ignored, got -"),
        (cross_entropy(np.full((3, 6), -100)), "at least one label in each row, got none in row 0"),
    ],
)
def test_what_cannot_be_is_refused(metric: Any, message: str) -> None:
    for ask in (metric.value, metric.gradient):
        with pytest.raises(ValueError, match=message):
            ask(LOGITS, IDS)


def test_a_loss_needs_ids_and_two_of_them() -> None:
    with pytest.raises(ValueError, match="needs ids or labels: it was given logits alone"):
        cross_entropy()(LOGITS)
    with pytest.raises(ValueError, match="at least one label"):
        cross_entropy().value(LOGITS[:, :1], IDS[:, :1])


def test_a_token_given_as_text_has_no_mark_in_front(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "tales", tmp_path, dirs_exist_ok=True)
    fields = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    mark, text = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    fields["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [mark, text],
        "pair": [mark, text],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
    model = GPT2.from_pretrained(tmp_path)
    assert len(model.tokenizer.encode(" king")) == 2
    (token,) = model.tokenizer.encode(" king", add_special_tokens=False)
    by_text, by_id = (model.run_with_gradients([1, 2], log_probability(one)).value for one in (" king", token))
    np.testing.assert_array_equal(by_text, by_id)

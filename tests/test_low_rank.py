"""Adapters in PEFT's files: kept apart and merged give the same, and PEFT and we read each other's.

The last test needs the ``peft`` package, which is no dependency of the tests: ``pip install peft`` beside them, and
``pytest tests/test_low_rank.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import random_ids

from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy
from gpt2_np.training import low_rank, with_adapters
from gpt2_np.training.tree import leaves

PARTS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def random_adapters(model: GPT2, rank: int = 3, **fields: Any) -> low_rank.Adapters:
    """Adapters of every matrix, B random too."""
    random = np.random.default_rng(0)
    new = low_rank.initial(model.config, rank, 5.0, 0, PARTS)
    tensors = {name: random.normal(0, 0.2, x.shape).astype(np.float32) for name, x in new.tensors.items()}
    return low_rank.Adapters(tensors, rank, 5.0, **fields)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_merged_and_kept_apart_are_the_same_model(small: Path, tmp_path: Path, use_rslora: bool) -> None:
    model = GPT2.from_pretrained(small, dtype="float64", backend="numpy")
    adapters = random_adapters(model, use_rslora=use_rslora)
    low_rank.save(tmp_path, adapters, "small")
    ids = random_ids(2, 9)
    merged, apart = (with_adapters(model, tmp_path, merge=merge)(ids) for merge in (True, False))
    np.testing.assert_allclose(merged, apart, atol=1e-9)
    assert np.abs(merged - model(ids)).max() > 0.1
    new = low_rank.initial(model.config, 2, 4.0, 0)
    np.testing.assert_array_equal(with_adapters(model, new)(ids), model(ids))
    assert with_adapters(model, new).params.wte is model.params.wte
    with pytest.raises(ValueError, match="parameters=True needs adapters to be merged"):
        with_adapters(model, tmp_path, merge=False).run_with_gradients(ids, cross_entropy(), (), parameters=True)


def test_on_reduced_weights_adapters_are_kept_apart(small: Path) -> None:
    exact, reduced = (GPT2.from_pretrained(small, dtype=dtype, backend="numpy") for dtype in ("float32", "bfloat16"))
    adapters, ids = random_adapters(exact), random_ids(1, 9)
    np.testing.assert_allclose(
        with_adapters(reduced, adapters, merge=False)(ids), with_adapters(exact, adapters)(ids), atol=0.2
    )
    with pytest.raises(ValueError, match=r"keep them apart \(merge=False\)"):
        with_adapters(reduced, adapters)


def test_gradients_are_finite_differences(small: Path) -> None:
    model = GPT2.from_pretrained(small, dtype="float64", backend="numpy")
    adapters = random_adapters(model)
    tensors = {name: x.astype(np.float64) for name, x in adapters.tensors.items()}
    adapters, ids, metric = low_rank.replaced(adapters, tensors), random_ids(1, 7), cross_entropy()

    def loss(tensors: dict[str, np.ndarray]) -> float:
        return float(metric.value(with_adapters(model, low_rank.replaced(adapters, tensors))(ids), ids).sum())

    grads = with_adapters(model, adapters).run_with_gradients(ids, metric, (), parameters=True).params
    found = low_rank.gradients(grads, adapters)
    assert found.keys() == tensors.keys()
    random = np.random.default_rng(1)
    direction = {name: random.normal(size=x.shape) for name, x in tensors.items()}
    for name in list(tensors)[::5]:
        moved = [loss(tensors | {name: tensors[name] + sign * 1e-5 * direction[name]}) for sign in (1, -1)]
        expected = (moved[0] - moved[1]) / 2e-5
        assert float((found[name] * direction[name]).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.update(peft_type="IA3"), "must describe adapters of peft_type LORA"),
        (lambda f: f.update(use_dora=True), "use_dora is set to True, which is not supported here"),
        (lambda f: f.update(bias="all"), "bias is set to 'all', which is not supported here"),
        (lambda f: f.update(r=0), "r must be a whole number of at least 1, got 0"),
        (lambda f: f.update(lora_alpha="x"), "lora_alpha must be a number, got 'x'"),
        (lambda f: f.update(r=4), "lora_A.weight must have the shape (4, 48), got (3, 48)"),
    ],
)
def test_what_is_not_understood_is_refused(spoil: Any, message: str, small: Path, tmp_path: Path) -> None:
    model = GPT2.from_pretrained(small, backend="numpy")
    low_rank.save(tmp_path, random_adapters(model))
    fields = json.loads((tmp_path / low_rank.CONFIG).read_text())
    spoil(fields)
    (tmp_path / low_rank.CONFIG).write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=re.escape(message)):
        with_adapters(model, tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for what it renames
def test_peft_and_we_read_each_other_s_adapters(small: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    import torch
    from transformers import GPT2LMHeadModel

    model, ids = GPT2.from_pretrained(small, backend="numpy"), random_ids(2, 11)

    def theirs(peft_model: Any) -> np.ndarray:
        with torch.inference_mode():
            return peft_model.eval()(torch.tensor(ids)).logits.numpy()

    ours = random_adapters(model)
    low_rank.save(tmp_path / "ours", ours, str(small))
    loaded = peft.PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(small), tmp_path / "ours")
    np.testing.assert_allclose(theirs(loaded), with_adapters(model, ours)(ids), atol=2e-4)

    settings = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
    for number, more in enumerate(({}, {"target_modules": ["c_attn", "c_proj", "c_fc"]}, {"use_rslora": True})):
        torch.manual_seed(number)
        config = peft.LoraConfig(**settings, **more, init_lora_weights=False)
        made = peft.get_peft_model(GPT2LMHeadModel.from_pretrained(small), config)
        made.save_pretrained(tmp_path / f"theirs{number}")
        for merge in (True, False):
            found = with_adapters(model, tmp_path / f"theirs{number}", merge=merge)(ids)
            np.testing.assert_allclose(found, theirs(made), atol=2e-4)
    assert len(leaves(dict(low_rank.load(tmp_path / "theirs1", model.config).tensors))) == 3 * 4 * 2

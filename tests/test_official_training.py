"""llm.c's and nanoGPT's losses, where the published weights and their data are; what computes and judges them,
everywhere.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from reference import random_ids, reference_model

from gpt2_np import GPT2
from gpt2_np.model.config import PUBLISHED
from gpt2_np.parity import official_training as official
from gpt2_np.training import AdamW
from gpt2_np.training.gradient import NextIds
from gpt2_np.weights import hub

VARIABLE, SHAKESPEARE = "LLM_C_DEBUG_STATE", "TINY_SHAKESPEARE"


def test_known_losses() -> None:
    """LLM_C_DEBUG_STATE=…/gpt2_124M_debug_state.bin pytest tests/test_official_training.py"""
    assert official.check(published(), named_by(VARIABLE, "llm.c's gpt2_124M_debug_state.bin")).passed


def test_known_start() -> None:
    """TINY_SHAKESPEARE=…/input.txt pytest tests/test_official_training.py"""
    text = named_by(SHAKESPEARE, "nanoGPT's data/shakespeare/input.txt").read_text(encoding="utf-8")
    assert official.check_start(published(), text).passed


def published() -> GPT2:
    if not isinstance(huggingface_hub.try_to_load_from_cache(hub.OFFICIAL["gpt2"], "model.safetensors"), str):
        pytest.skip("the weights of gpt2 are not in the cache; 'gpt2-np info --model gpt2' downloads them")
    return GPT2.from_pretrained("gpt2")


def named_by(variable: str, file: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} names no file: it should be {file}")
    return Path(os.environ[variable])


@pytest.mark.slow
def test_losses_of_random_weights_are_llm_c_s() -> None:
    params, batch = official.random_weights(PUBLISHED["gpt2"])
    assert params.wte.ravel()[:2].tolist() == pytest.approx([-0.018746, -0.01211888], abs=1e-7)  # NumPy's stream
    assert batch[0][0, :4].tolist() == [29779, 47527, 2018, 23783]
    known = official.LLM_C_RANDOM
    found = official.losses(GPT2(params, PUBLISHED["gpt2"]), batch, known.optimizer, len(known.losses))
    assert official.compare(known, found).passed, found


def debug_state(path: Path, ids: np.ndarray, labels: np.ndarray) -> Path:
    header = np.zeros(official.HEADER, "<i4")
    header[:4] = official.MAGIC, 2, *ids.shape
    path.write_bytes(header.tobytes() + ids.astype("<i4").tobytes() + labels.astype("<i4").tobytes() + b"logits")
    return path


def test_losses_are_torch_s_and_can_be_missed(small: Path, tmp_path: Path) -> None:
    rows = random_ids(2, 9)
    path = debug_state(tmp_path / "state.bin", rows[:, :-1], rows[:, 1:])
    reference = reference_model()
    optimizer, expected = torch.optim.AdamW(reference.parameters(), 1e-2), []
    for _ in range(3):
        logits = reference(torch.tensor(rows[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(rows[:, 1:]).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    known = official.KnownLosses("small", tuple(expected), AdamW(1e-2, backend="numpy"), "torch")
    model = GPT2.from_pretrained(small, backend="numpy")
    assert official.check(model, path, known).passed
    off = official.check(model, path, replace(known, losses=(*expected[:2], expected[2] + 2e-4)))
    assert not off.passed
    assert off.where == "[2]"
    assert not official.compare(known, [float("nan")] * 3).passed


def test_the_losses_of_a_text_s_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, story = GPT2.from_pretrained(), "\n".join(f"Story {n}. The king and the queen." for n in range(1500))
    monkeypatch.setattr(official, "WINDOWS", 3)
    text = "a e i o u " * 2000 + story
    found = official.starting_losses(model, text)
    cut, T = int(len(text) * 0.9), model.config.n_positions
    for loss, part in zip(found, (text[:cut], text[cut:]), strict=True):
        ids = model.tokenizer.encode(part, add_special_tokens=False)
        ends = [0, (len(ids) - T - 1) // 2, len(ids) - T - 1]
        rows = [
            model.run_with_gradients(ids[at : at + T + 1][:-1], NextIds([ids[at + 1 : at + T + 1]], T), ())
            for at in ends
        ]
        assert loss == pytest.approx(np.mean([run.value[0] for run in rows]), rel=1e-5)  # two orders of sums in float32
    known = official.KnownLosses("tales", tuple(found), None, "here")
    assert official.check_start(model, text, known).passed
    assert not official.check_start(model, text, replace(known, losses=(found[0], found[1] + 0.01))).passed
    with pytest.raises(ValueError, match="both parts of the text must have more than 512 tokens, got"):
        official.starting_losses(model, "short")
    with pytest.raises(ValueError, match="losses of steps need an optimizer"):
        official.check(model, Path("none"), official.NANOGPT)


def test_another_file_is_refused(tmp_path: Path) -> None:
    rows = random_ids(2, 9)
    path = debug_state(tmp_path / "state.bin", rows, rows)
    content = path.read_bytes()
    for spoilt in (b"", content[:100], b"x" * 5000, content[:1100]):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"state.bin must (be a debug state of llm.c|hold 36 ids and labels)"):
            official.debug_batch(path)

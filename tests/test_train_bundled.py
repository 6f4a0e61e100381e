"""Training: a killed run goes on to the very same weights, the split never moves, and what comes out loads anywhere."""

from __future__ import annotations

import csv
import json
import lzma
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.weights import hub

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from training import data, learning  # noqa: E402


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little text of both kinds."""
    folder, random = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    words = ["king", "queen", "forest", "mouse", "said", "went", "old", "little", "the", "a", "and", "sea", "naïve"]
    for kind, count in (("tales", 300), ("novels", 300)):
        documents = [" ".join(random.choice(words, 60)) + ".\nThe end." for _ in range(count)]
        (folder / f"{kind}.txt.xz").write_bytes(lzma.compress("\n<|endoftext|>\n".join(documents).encode()))
    return folder


def train(text: Path, out: Path, *extra: str) -> None:
    arguments = [
        "--text",
        str(text),
        "--out",
        str(out),
        "--size",
        "tiny",
        "--tokens",
        "1536",
        "--rows",
        "2",
        "--every",
        "2",
        "--dropout",
        "0.1",
        "--check",
        "4",
        *extra,
    ]
    subprocess.run(
        [sys.executable, str(SCRIPTS / "train_bundled.py"), *arguments],
        check=True,
        capture_output=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_killed_run_goes_on_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    train(text, tmp_path / "whole")
    train(text, tmp_path / "parts", "--stop-after", "3")
    (tmp_path / "schedule.csv").write_text("step,tokens,tales,repeats\n0,1536,0.2,0.03\n4,1536,0.2,0.03\n")
    train(text, tmp_path / "parts", "--schedule", str(tmp_path / "schedule.csv"))
    whole, parts = (load_file(next((tmp_path / name).glob("checkpoint-*.safetensors"))) for name in ("whole", "parts"))
    assert set(whole) == set(parts)
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    progress = json.loads((tmp_path / "parts/progress.json").read_text())
    assert (progress["step"], progress["tokens"]) == (6, 1536)
    with (tmp_path / "whole/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    samples = (tmp_path / "whole/samples.txt").read_text()
    assert samples.startswith("--- step 4\nOnce upon a time")
    assert samples == (tmp_path / "parts/samples.txt").read_text()
    export(tmp_path / "whole", tmp_path / "model", whole)


def test_a_schedule_says_what_holds_from_which_step(tmp_path: Path) -> None:
    phases = learning.read_phases(SCRIPTS / "training/tales.csv")
    card = (hub.BUNDLED / "tales/README.md").read_text()
    for one in phases:
        assert f"| {one.step:,} | {one.tokens:,} | {one.tales:.0%} | {one.repeats:.0%} |" in card
    for rows in ("", "5,1,0.1,0.1\n", "0,1,0.1,0.1\n0,1,0.1,0.1\n"):
        (tmp_path / "bad.csv").write_text(f"step,tokens,tales,repeats\n{rows}")
        with pytest.raises(ValueError, match=r"bad.csv must have rows for rising steps, the first for step 0"):
            learning.read_phases(tmp_path / "bad.csv")


def test_held_out_documents_are_scored_by_the_command_line(text: Path, tmp_path: Path) -> None:
    documents = sorted(data.documents(text, "tales"), key=data.is_held_out)[-3:-1] + data.documents(text, "tales")[:3]
    text = tmp_path / "text"
    text.mkdir()
    (text / "tales.txt.xz").write_bytes(lzma.compress("\n<|endoftext|>\n".join(documents).encode()))
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "held_out.py"), "--text", str(text), "--out", str(tmp_path), "--kinds", "tales"],
        check=True,
        capture_output=True,
        text=True,
    )
    from write_card import held_out

    figures = held_out(GPT2.from_pretrained(), text, "tales")
    assert figures["documents"] == len(list(tmp_path.glob("tales-*.txt"))) > 0
    assert done.stdout.startswith(f"tales: {figures['bits_per_byte']:.3f} bits per byte, perplexity")


def export(run: Path, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    subprocess.run(
        [sys.executable, str(SCRIPTS / "export_bundled.py"), str(run), str(folder), "--dtype", "float32"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    reference, ours = GPT2LMHeadModel.from_pretrained(folder).eval(), GPT2.from_pretrained(folder)
    assert torch.equal(reference.transformer.wte.weight, tensors["model.transformer.wte.weight"])
    ids = AutoTokenizer.from_pretrained(folder)("The king went.")["input_ids"]
    assert ours.tokenizer.encode("The king went.") == ids
    with torch.inference_mode():
        np.testing.assert_allclose(ours(ids), reference(torch.tensor([ids])).logits[0].numpy(), atol=1e-4)
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_split_is_by_document_and_never_moves() -> None:
    documents = [f"document {number}" for number in range(5000)]
    held = [document for document in documents if data.is_held_out(document)]
    assert held == [document for document in reversed(documents) if data.is_held_out(document)][::-1]
    assert 0.02 < len(held) / len(documents) < 0.04


def test_a_batch_is_a_function_of_seed_and_step(text: Path, tmp_path: Path) -> None:
    corpora = data.prepare(text, tmp_path, 300)
    assert set(corpora) == {f"{kind}{part}" for kind in data.KINDS for part in ("", " held out")}
    arguments = {"rows": 4, "length": 64, "tales": 0.2, "repeats": 0.5, "vocabulary": 300, "seed": 0}
    first, again, other = (data.batch(corpora, step, **arguments) for step in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rows = np.concatenate([data.batch(corpora, step, **arguments) for step in range(20)])
    repeating = [any((row[p:] == row[:-p]).all() for p in range(8, 56)) for row in rows]
    assert 0.15 < np.mean(repeating) < 0.7


def test_the_schedule_rises_and_comes_down() -> None:
    values = [learning.schedule(done) for done in np.linspace(0, 1, 101)]
    assert values[0] == 0
    assert values[2] == pytest.approx(1)
    assert values[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in pairwise(values[2:]))


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (32, 32)])
def test_muon_s_step_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(learning.orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_the_card_tells_what_was_measured() -> None:
    folder = hub.BUNDLED / "tales"
    figures = json.loads((folder / "figures.json").read_text())
    card = (folder / "README.md").read_text()
    for kind in data.KINDS:
        assert f"{figures['held_out'][kind]['bits_per_byte']:.3f}" in card
        assert figures["held_out"][kind]["bits_per_byte"] <= 1.45
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 25_000_000
    assert (folder / "ATTRIBUTION-african-storybook.tsv").is_file()


def test_the_bundled_model_has_an_induction_head() -> None:
    from write_card import induction

    measured, told = induction(GPT2.from_pretrained()), json.loads((hub.BUNDLED / "tales/figures.json").read_text())
    np.testing.assert_allclose(measured, told["induction"], atol=2e-3)
    assert max(max(row) for row in measured) >= 0.5


def small_model() -> GPT2LMHeadModel:
    shape = {"vocab_size": 97, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 4}
    return learning.build(shape, 0, 0.0, "cpu")


def test_the_loss_is_transformers_own() -> None:
    model = small_model()
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 97, (2, 13)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # norms and biases too, so that none is forgotten
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(rows[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        assert learning.loss_of(model, rows).item() == pytest.approx(expected.item(), rel=1e-3)
        assert learning.loss_of(model, rows, "sum").item() == pytest.approx(24 * expected.item(), rel=1e-3)


def test_matrices_of_one_shape_are_made_orthogonal_together() -> None:
    model = small_model()
    optimizer = learning.Optimizer(model, {"muon": 0.02, "adam": 0.004, "decay": 0.1})
    updates = [torch.randn_like(one) for one in optimizer.matrices.values()]
    for name, update, made in zip(optimizer.matrices, updates, optimizer.muon(updates), strict=True):
        parts = update.chunk(3, dim=1) if "c_attn" in name else (update,)
        stretch = 2.0 if "c_fc" in name else 1.0  # four times as wide as high
        expected = torch.cat([learning.orthogonalise(part) * stretch for part in parts], dim=1)
        torch.testing.assert_close(made, expected, rtol=0.05, atol=0.02)

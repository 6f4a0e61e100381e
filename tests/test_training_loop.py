"""A run: resumed to the same bits however it ended, refused in one line where it can't be, loaded by transformers."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import reference_model
from transformers import GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.model.params import flatten
from gpt2_np.training import Stopped, checkpoint, data, loop, train
from gpt2_np.training.low_rank import with_adapters
from gpt2_np.weights import hub

IDS = [np.random.default_rng(number).integers(1, 97, 60).tolist() for number in range(12)]
SETTINGS: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "context": 12,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "eval_steps": 3,
    "save_steps": 2,
    "held_out": 0.2,
    "backend": "numpy",
}


def model_of(small: Path) -> GPT2:
    return GPT2.from_pretrained(small, backend="numpy")


def params(out: Path) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in flatten(GPT2.from_pretrained(out).params)}


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits in every file, the picture aside."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file() and path.suffix != ".png"}
    assert files == {path.relative_to(other) for path in other.rglob("*") if path.is_file() and path.suffix != ".png"}
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a stop."""
    return train(model_of(small), IDS, tmp_path_factory.mktemp("whole") / "run", **SETTINGS)


def test_a_run_learns_and_its_folder_is_a_model_s(whole: Path, small: Path) -> None:
    with (whole / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(step) for step in range(7)]
    assert [row["tokens"] for row in rows] == [str(48 * step) for step in range(7)]
    assert [bool(row["held_out_nats"]) for row in rows] == [True, False, False, True, False, False, True]
    assert float(rows[-1]["loss_nats"]) < float(rows[1]["loss_nats"]) - 0.5
    assert [float(row["learning_rate"]) for row in rows[1:4]] == [0, 0.005, 0.01]
    theirs = GPT2LMHeadModel.from_pretrained(whole)
    with torch.inference_mode():
        logits = theirs(torch.tensor([IDS[0]])).logits[0].numpy()
    np.testing.assert_allclose(GPT2.from_pretrained(whole, backend="numpy")(IDS[0]), logits, atol=1e-3)
    assert (whole / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in checkpoint.folders(whole)] == ["checkpoint-6"]
    assert not list(whole.rglob("*.part"))


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_killed_run_goes_on_to_the_same_bits(step: int, whole: Path, small: Path, tmp_path: Path) -> None:
    def kill(report: loop.Report) -> None:
        if report.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(model_of(small), IDS, tmp_path / "run", report=kill, **SETTINGS)
    with (tmp_path / "run/loss.csv").open("a") as file:
        file.write("7,3")  # a line that the kill cut
    train(model_of(small), IDS, tmp_path / "run", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "run", whole)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("checkpoint-*/*")}
    train(model_of(small), IDS, tmp_path / "run", resume=True, **SETTINGS)  # nothing is left to do
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("checkpoint-*/*")}


def test_a_process_killed_while_it_writes_goes_on(whole: Path, small: Path, tmp_path: Path) -> None:
    """A real kill −9, in the midst of a checkpoint."""
    out = tmp_path / "run"
    child = os.fork()
    if child == 0:
        writing = checkpoint.write_whole

        def last_words(path: Path, content: Any) -> None:
            writing(path, content)
            if path.name == checkpoint.OPTIMIZER and "checkpoint-4" in str(path):
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.write_whole = last_words  # type: ignore[assignment]
        train(model_of(small), IDS, out, **SETTINGS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (out / "checkpoint-4.part").is_dir()
    train(model_of(small), IDS, out, resume=True, **SETTINGS)
    assert_same_run(out, whole)


def test_ctrl_c_saves_and_the_run_goes_on(whole: Path, small: Path, tmp_path: Path) -> None:
    def press(report: loop.Report) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="stopped after step 3, which is saved"):
        train(model_of(small), IDS, tmp_path / "run", report=press, **SETTINGS)
    assert [path.name for path in checkpoint.folders(tmp_path / "run")] == ["checkpoint-3"]
    train(model_of(small), IDS, tmp_path / "run", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "run", whole)


def test_a_full_disk_leaves_the_checkpoint_before(
    whole: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = checkpoint.write_whole

    def full(path: Path, content: Any) -> None:
        if "checkpoint-4" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        writing(path, content)

    monkeypatch.setattr(checkpoint, "write_whole", full)
    with pytest.raises(OSError, match="No space left on device"):
        train(model_of(small), IDS, tmp_path / "run", **SETTINGS)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.undo()
    train(model_of(small), IDS, tmp_path / "run", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "run", whole)


def test_a_loss_that_is_not_finite_is_not_learned_from(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step \d has a loss of .* and is not taken; .* try a lower learning_rate"):
        train(model_of(small), IDS, tmp_path / "run", **SETTINGS | {"learning_rate": 1e30, "save_steps": 100})
    (saved,) = checkpoint.folders(tmp_path / "run")
    assert all(np.isfinite(x).all() for x in params(saved).values())


def test_adapters_learn_and_the_model_stays(small: Path, tmp_path: Path) -> None:
    model, settings = model_of(small), SETTINGS | {"lora_rank": 3, "lora_alpha": 12.0}
    before = params(small)
    whole = train(model, IDS, tmp_path / "whole", **settings)

    def press(report: loop.Report) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        train(model, IDS, tmp_path / "parts", report=press, **settings)
    train(model, IDS, tmp_path / "parts", resume=True, **settings)
    assert_same_run(whole, tmp_path / "parts")
    assert all(np.array_equal(array, before[name]) for name, array in flatten(model.params))
    last = float((whole / "loss.csv").read_text().splitlines()[-1].split(",")[5])
    held = loop.corpora(data.read(IDS), model, loop.from_names(settings))[1]
    nats, _ = loop.look(with_adapters(model, whole), held, loop.from_names(settings))
    assert float(nats) == pytest.approx(last, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sources", "message"),
    [
        ({"context": 65}, IDS, "context must be at most the model's 64 positions, got 65"),
        ({}, [[1, 2, 3]], "must have more ids than a context of 12, got"),
        ({}, [], "there is no text to train on"),
        ({}, [[1, 97, 2] * 20], "ids must be between 0 and 96, got 97"),
        ({}, [["a"]], "ids must be a list of whole numbers"),
        ({"steps": 0}, IDS, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, IDS, "learning_rate must be above 0, got 0.0"),
        ({"held_out": 1.0}, IDS, r"held_out must be in \[0, 1\), got 1.0"),
        ({"lr_scheduler_type": "up"}, IDS, "schedule must be one of"),
        ({"colour": 1}, IDS, "colour is no setting of training; known are steps"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    change: dict, sources: Any, message: str, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(model_of(small), sources, tmp_path / "run", **SETTINGS | change)
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_and_another_run_are_refused(whole: Path, small: Path, tmp_path: Path) -> None:
    model = model_of(small)
    with pytest.raises(ValueError, match=r"is in use; go on with the run there .*, or choose another folder"):
        train(model, IDS, whole, **SETTINGS)
    with pytest.raises(ValueError, match=r"goes on with seed 0, as the run began; got 1"):
        train(model, IDS, whole, resume=True, **SETTINGS | {"seed": 1})
    with pytest.raises(ValueError, match=r"holds no run that could go on: it has no training.json"):
        train(model, IDS, small, resume=True, **SETTINGS)
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoint-6")
    with pytest.raises(ValueError, match=r"needs the text that the run began with"):
        train(model, IDS[1:], tmp_path / "run", resume=True, **SETTINGS)


def test_text_and_jsonl_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One day.\n<|endoftext|>\nA king.\n<|endoftext|>\n \n")
    (tmp_path / "a.jsonl").write_text('{"text": "One day."}\n\n{"text": "A king."}\n{"ids": [1, 2]}\n')
    assert data.read([tmp_path / "a.txt"]) == ["One day.", "A king."]
    *texts, ids = data.read([str(tmp_path / "a.jsonl")])
    assert texts == ["One day.", "A king."]
    assert ids.tolist() == [1, 2]
    model = GPT2.from_pretrained(backend="numpy")
    corpus = data.encode(["One day.", np.array([1, 2])], model)
    end = model.tokenizer.end_of_text
    assert corpus.ids.tolist() == [*model.tokenizer.encode("One day."), end, 1, 2, end]
    assert corpus.bytes == 8 + len(model.tokenizer.decode([1, 2]).encode())
    for line in ("x", "[1]", '{"text": 1}', '{"ids": [1.5]}', '{"ids": [[1]]}', "[" * 100_000):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + line)
        with pytest.raises(ValueError, match=r"bad.jsonl, line 2: "):
            data.read([tmp_path / "bad.jsonl"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin.txt must be UTF-8 text; byte 3 is not"):
        data.read([tmp_path / "latin.txt"])


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30, unique=True), st.floats(0.01, 0.9))
def test_the_split_is_by_document_and_leaves_something_on_both_sides(documents: list[str], share: float) -> None:
    training, held = data.split(documents, share)
    if len(documents) == 1:
        assert training[0] + held[0] == documents[0]
        return
    assert training
    assert held
    assert sorted([*training, *held]) == sorted(documents)
    assert data.split(documents[::-1], share) == (training[::-1], held[::-1])
    assert data.split(documents, 0) == (documents, [])


@given(st.integers(0, 99), st.integers(0, 99), st.integers(2, 40))
def test_rows_are_a_function_of_seed_and_step(seed: int, step: int, size: int) -> None:
    corpus = data.Corpus(np.arange(size), 0, 1)
    rows = data.rows(corpus, step, 3, size - 1 if size < 4 else 2, seed)
    assert np.array_equal(rows, data.rows(corpus, step, 3, rows.shape[1] - 1, seed))
    assert (np.diff(rows, axis=1) == 1).all()
    assert 0 <= rows.min() <= rows.max() < size


def test_the_bundled_model_learns_a_text_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The fox met the crow by the well, and the crow kept silent. " * 30)
    model = GPT2.from_pretrained(backend="numpy")
    options = {
        "context": 16,
        "batch_size": 2,
        "steps": 2,
        "sample_tokens": 3,
        "sample_prompt": "The fox",
        "backend": "numpy",
    }
    out = train(model, [tmp_path / "a.txt"], tmp_path / "run", **options)
    rows = (out / "loss.csv").read_text().splitlines()
    assert float(rows[-1].split(",")[5]) < float(rows[1].split(",")[5])
    assert (out / "samples.txt").read_text().startswith("--- step 2\nThe fox")
    again = GPT2.from_pretrained(out, backend="numpy")
    assert again.tokenizer.encode("A king.") == model.tokenizer.encode("A king.")
    assert not model.params.wte.flags.writeable or np.array_equal(
        model.params.wte, GPT2.from_pretrained(hub.BUNDLED / "tales").params.wte
    )


def test_a_reduced_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training needs weights in float32 or float64"):
        train(GPT2.from_pretrained(dtype="int8", backend="numpy"), IDS, tmp_path / "run", **SETTINGS)


def test_a_reference_of_another_shape_trains_too(tmp_path: Path) -> None:
    reference_model(tie_word_embeddings=False, activation_function="xielu", n_layer=1).save_pretrained(tmp_path / "m")
    out = train(GPT2.from_pretrained(tmp_path / "m", backend="numpy"), IDS, tmp_path / "run", **SETTINGS)
    names = set(params(out))
    assert {"lm_head.weight", "h.0.mlp.act.alpha_p"} <= names

"""The parity tool: it passes what is the same, names what isn't, and tells rounding from a defect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model, save

from gpt2_np import GPT2
from gpt2_np.parity import numbers, run
from gpt2_np.parity.suite import Case, judge, tokens
from gpt2_np.session import Model
from gpt2_np.text import on_torch


def test_every_check_on_a_small_model(small: Path) -> None:
    checks = list(run(str(small), prompts=[[1, 2, 3], [5] * 9], seed=3))
    assert len(checks) > 30
    assert [check.name for check in checks if check.verdict == "mismatch"] == []
    names = {check.name for check in checks}
    assert {"prompt 0: blocks.2.attn.pattern", "prompt 1: logits", "greedy, prompt 0"} <= names


@pytest.mark.parity
def test_every_check_on_the_chosen_model(request: pytest.FixtureRequest) -> None:
    option = request.config.getoption
    prompts = {} if not option("--prompts") else {"prompts": Path(option("--prompts")).read_text().splitlines()}
    checks = list(run(option("--model"), device=option("--device"), **prompts))
    assert [check for check in checks if not check.passed] == []


@given(
    heads=st.integers(1, 4), width=st.integers(2, 16), layers=st.integers(1, 3), vocabulary=st.integers(8, 60),
    length=st.integers(1, 8), seed=st.integers(0, 2**31),
    options=st.sampled_from([
        {}, {"num_beams": 3}, {"do_sample": True}, {"do_sample": True, "temperature": 0.7, "top_k": 7},
        {"do_sample": True, "top_p": 0.8}, {"do_sample": True, "min_p": 0.1, "num_return_sequences": 1},
    ]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_model_gives_the_same_tokens_or_a_proven_near_tie(
    tmp_path_factory, heads, width, layers, vocabulary, length, seed, options
) -> None:
    fields = {"n_head": heads, "n_embd": heads * width, "n_layer": layers, "vocab_size": vocabulary, "n_positions": 40}
    name = save(reference_model(seed, **fields), tmp_path_factory.mktemp("any"))
    ours, theirs, truth = GPT2.from_pretrained(name), on_torch(name), on_torch(name, dtype="float64")
    ids = random_ids(1, length, vocabulary, seed)[0].tolist()
    check = tokens("any", ours, theirs, truth, ids, Case("any", options, 25), seed, "cpu")
    assert check.passed, check
    assert numbers("logits", *(model.forward(np.array([ids])) for model in (ours, theirs, truth))).passed


def test_our_logits_are_as_near_the_truth_as_torchs(small: Path) -> None:
    ours, theirs, truth = Model.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    errors = []
    for seed in range(20):
        ids = random_ids(2, 30, seed=seed)
        exact = truth.forward(ids)
        errors.append([np.abs(model.forward(ids) - exact).max() for model in (ours, theirs)])
    mine, their = np.median(errors, axis=0)
    assert mine <= 1.5 * their


# ---- what is wrong is named -----------------------------------------------------------------------------------------


def test_a_wrong_epsilon_is_a_mismatch(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2_np import ops

    right = ops.layer_norm
    monkeypatch.setattr(ops, "layer_norm", lambda x, weight, bias, epsilon: right(x, weight, bias, epsilon * 100))
    checks = list(run(str(small), prompts=[[1, 2, 3]], backend="numpy"))
    assert {check.name for check in checks if not check.passed} >= {"prompt 0: float64 logits", "prompt 0: logits"}
    embedded = next(check for check in checks if check.name == "prompt 0: blocks.0.resid_pre")
    assert embedded.passed


def test_rounding_is_told_from_a_defect() -> None:
    truth = np.linspace(-5, 5, 50)
    rounded = truth.astype(np.float32)
    assert numbers("a", rounded, rounded, truth).verdict == "same"
    assert numbers("a", rounded + np.float32(1e-3), rounded, truth).verdict == "mismatch"
    assert numbers("a", np.full(50, np.nan, np.float32), rounded, truth).verdict == "mismatch"
    assert numbers("a", rounded[:9], rounded, truth).verdict == "mismatch"


def test_a_divergence_is_a_near_tie_only_when_replaying_explains_it(small: Path) -> None:
    ours, theirs, truth = GPT2.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    wrong = judge("x", ours, theirs, truth, [1, 2], lambda model: [3, 4], [3, 5])
    assert wrong.verdict == "mismatch"
    assert "NOT the same" in wrong.note
    tie = judge("x", ours, theirs, truth, [1, 2], lambda model: [3, 5] if model is theirs else [3, 4], [3, 5])
    assert (tie.verdict, tie.where) == ("near-tie", "token 1")
    assert tie.ours is not None
    assert tie.ours < 1e-4


def test_the_torch_backend_decodes_with_our_decoders(small: Path) -> None:
    theirs, ours = on_torch(small), GPT2.from_pretrained(small)
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "seed": 3, "num_return_sequences": 2}):
        mine, their = (model.generate([1, 2], max_new_tokens=12, **options) for model in (ours, theirs))
        assert repr(getattr(mine, "ids", None)) == repr(getattr(their, "ids", None))
    torchs, our = theirs.start(), ours.start()
    for session in (torchs, our):
        session.feed([[1, 2, 3], [4]])
        session.feed([[5, 6], [7, 8]])
        session.rewind([1, 2])
        session.reorder([1, 0, 1])
    np.testing.assert_allclose(torchs.feed([[9], [10], [11]]), our.feed([[9], [10], [11]]), atol=1e-4)


# ---- the command ----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess:
    code = "from gpt2_np.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("The king\n")
    done = command("parity", "--prompts", str(tmp_path / "prompts"), "--json")
    assert done.returncode == 0, done.stderr
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert {check["verdict"] for check in checks} <= {"same", "near-tie"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parity", "--prompts", "/nowhere"], "/nowhere: No such file or directory"),
        (["parity", "--model", "/nowhere"], "there is no folder '/nowhere'"),
        (["parity", "--device", "cuda"], "device cuda is not there: torch sees no CUDA device"),
        (["generate", "x", "--backend", "torch", "--dtype", "int8"], "dtype on torch must be one of float32, float64"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

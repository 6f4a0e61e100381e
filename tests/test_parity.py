"""The parity tool: it passes what is the same, names what isn't, and tells rounding from a defect."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model, save

from gpt2_np import GPT2
from gpt2_np.parity import Check, numbers, run
from gpt2_np.parity.checks import rounding
from gpt2_np.parity.suite import Case, tokens
from gpt2_np.parity.ties import judge, started
from gpt2_np.session.model import Model
from gpt2_np.text.gpt2 import on_torch


def test_every_check_on_a_small_model(small: Path) -> None:
    checks = list(run(str(small), prompts=[[1, 2, 3], [5] * 9], seed=3))
    assert len(checks) > 30
    assert [check.name for check in checks if check.verdict == "mismatch"] == []
    names = {check.name for check in checks}
    assert {"prompt 0: blocks.2.attn.pattern", "prompt 1: logits", "greedy, prompt 0"} <= names


def test_a_model_without_a_tokenizer_or_room_is_checked_on_ids(tmp_path: Path) -> None:
    folder = save(reference_model(n_layer=1, n_positions=8), tmp_path)
    checks = list(run(str(folder)))
    assert {"prompt 2: logits", "rounding of all together"} <= {check.name for check in checks}
    assert [check.name for check in checks if not check.passed] == []


@pytest.mark.parity
def test_every_check_on_the_chosen_model(request: pytest.FixtureRequest) -> None:
    option = request.config.getoption
    prompts = {} if not option("--prompts") else {"prompts": Path(option("--prompts")).read_text().splitlines()}
    checks = list(run(option("--model"), device=option("--device"), **prompts))
    assert [check for check in checks if not check.passed] == []


def test_any_model_gives_the_same_tokens_or_a_proven_near_tie(tmp_path_factory: pytest.TempPathFactory) -> None:
    errors: list[tuple[float, float]] = []

    @given(
        heads=st.integers(1, 4),
        width=st.integers(4, 16),
        layers=st.integers(1, 3),
        vocabulary=st.integers(8, 60),
        length=st.integers(1, 8),
        seed=st.integers(0, 2**31),
        options=st.sampled_from(
            [
                {},
                {"num_beams": 3},
                {"do_sample": True},
                {"do_sample": True, "temperature": 0.7, "top_k": 7},
                {"do_sample": True, "top_p": 0.8},
                {"do_sample": True, "min_p": 0.1},
            ]
        ),
    )
    @settings(max_examples=100, deadline=None)
    def any_model(heads, width, layers, vocabulary, length, seed, options) -> None:
        fields = {"n_head": heads, "n_embd": heads * width, "n_layer": layers, "vocab_size": vocabulary}
        name = save(reference_model(seed, n_positions=40, **fields), tmp_path_factory.mktemp("any"))
        ours, theirs, truth = GPT2.from_pretrained(name), on_torch(name), on_torch(name, dtype="float64")
        ids = random_ids(1, length, vocabulary, seed)[0].tolist()
        check = tokens("any", ours, theirs, truth, ids, Case("any", options, 25), seed, "cpu")
        assert check.passed, check
        exact = truth.forward(np.array([ids]))
        errors.append(tuple(float(np.abs(model.forward(np.array([ids])) - exact).max()) for model in (ours, theirs)))

    any_model()
    # A single model may be ill-conditioned (a layer norm of nearly equal entries): the median is what can be promised.
    mine, their = np.median(errors, axis=0)
    assert mine <= 1.5 * their


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
    from gpt2_np.model import ops

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
    # A single tensor may be as far off as twelve times torch's distance; random models were up to 8.6 times.
    off = truth + 1e-4
    assert [numbers("a", truth + far * 1e-4, off, truth).verdict for far in (11.9, 12.1)] == ["same", "mismatch"]


# ---- near-ties and defects ------------------------------------------------------------------------------------------


def contested(model: Any, prompt: list[int], steps: int, edge: float, a: int, b: int) -> list[int]:
    """A decoder that takes `a` where its logit is more than `edge` above `b`'s, else `b`."""
    session, new = model.start(), []
    logits = session.feed([prompt])
    for _ in range(steps):
        new.append(a if float(logits[0, a]) - float(logits[0, b]) > edge else b)
        logits = session.feed([new[-1:]])
    return new


class Spoilt:
    """A session whose logits go wrong after the prompt, as behind a broken cache."""

    def __init__(self, session: Any) -> None:
        self.session, self.fed = session, 0

    def feed(self, ids: Any) -> np.ndarray:
        self.fed += 1
        return self.session.feed(ids) + np.float32(0.01) * (np.arange(97) == 5) * (self.fed > 1)


def differing(ours: GPT2, theirs: Any, prompt: list[int]) -> tuple[int, int, float]:
    """Two candidates whose distance rounds differently on the two sides, and an edge between the two distances."""
    mine, their = (model.start().feed([prompt])[0].astype(np.float64) for model in (ours, theirs))
    for a in range(97):
        for b in range(97):
            one, other = float(mine[a] - mine[b]), float(their[a] - their[b])
            if one > other:
                return a, b, (one + other) / 2
    raise AssertionError("the two sides round alike")


def test_a_boundary_within_rounding_is_a_near_tie_and_its_distance_is_told(small: Path) -> None:
    ours, theirs, truth = GPT2.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    a, b, edge = differing(ours, theirs, [1, 2])
    expected = contested(theirs, [1, 2], 3, edge, a, b)
    tie = judge("x", ours, theirs, truth, [1, 2], lambda model: contested(model, [1, 2], 3, edge, a, b), expected)
    assert (tie.verdict, tie.where) == ("near-tie", "token 0")
    assert f"ours {a}, torch's {b}" in tie.note
    turns, share = re.search(r"turns (\S+) from torch's logits, (\d+)% of the way to ours", tie.note).groups()
    assert 0 < float(turns) <= tie.difference < 1e-5
    assert 0 < int(share) <= 100
    assert tie.ours is not None
    assert tie.theirs is not None
    assert max(tie.ours, tie.theirs) < 1e-5


def test_a_decoder_that_replaying_does_not_explain_is_a_mismatch(small: Path) -> None:
    ours, theirs, truth = GPT2.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    wrong = judge("x", ours, theirs, truth, [1, 2], lambda model: contested(model, [1, 2], 2, 99.0, 3, 4), [4, 5])
    assert wrong.verdict == "mismatch"
    assert "NOT the same" in wrong.note


def test_a_broken_cache_is_no_near_tie_although_replaying_explains_it(small: Path) -> None:
    ours, theirs, truth = GPT2.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    logits = theirs.forward(np.array([[1, 2, 3]]), last_only=True)[0, -1].astype(np.float64)
    edge = float(logits[5] - logits[3]) + 0.005

    def decode(model: Any) -> list[int]:
        session = model.start()
        session.feed([[1, 2]])
        return [3, 5 if (row := session.feed([[3]])[0])[5] - row[3] > edge else 3]

    broken = started(ours, lambda **settings: Spoilt(ours.start(**settings)))
    found = judge("x", broken, theirs, truth, [1, 2], decode, [3, 3])
    assert found.verdict == "mismatch"
    assert "farther from float64 than rounding takes them" in found.note
    assert found.ours == pytest.approx(0.01, rel=1e-3)
    assert judge("x", ours, theirs, truth, [1, 2], decode, [3, 3]).verdict == "same"


def test_beams_that_part_are_judged_on_every_text_that_led_there(small: Path) -> None:
    ours, theirs, truth = GPT2.from_pretrained(small), on_torch(small), on_torch(small, dtype="float64")
    case = Case("beams", {"num_beams": 3}, 12)
    assert tokens("beams", ours, theirs, truth, [1, 2], case, 0, "cpu").verdict == "same"
    broken = started(ours, lambda **settings: SpoiltBeams(ours.start(**settings)))
    found = tokens("beams", broken, theirs, truth, [1, 2], case, 0, "cpu")
    assert found.verdict == "mismatch"
    assert found.ours > 1


class SpoiltBeams(Spoilt):
    """The same with rows that are permuted wrongly."""

    def feed(self, ids: Any) -> np.ndarray:
        return self.session.feed(ids)

    def reorder(self, rows: Any) -> None:
        self.session.reorder(rows[::-1])


def test_rounding_of_all_together_is_held_to_torch_s() -> None:
    as_good = [Check("a", "same", ours=1.2e-6, theirs=1e-6), Check("b", "same", ours=3e-6, theirs=1e-6)]
    assert rounding([*as_good, Check("c", "same", ours=0.5e-6, theirs=1e-6)]).passed
    between, beyond = (Check("c", "same", ours=far * 1e-6, theirs=1e-6) for far in (2.1, 3.1))
    assert [rounding([*as_good, between], device).passed for device in ("cpu", "cuda")] == [False, True]
    assert not rounding([*as_good, beyond, beyond], "cuda").passed


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


def test_the_command(gpt2: GPT2, tmp_path: Path) -> None:
    """Of the bundled model one layer, so that it takes seconds; the suite (`pytest -m parity`) takes all of it."""
    one_layer = gpt2.params._replace(h=gpt2.params.h[:1])
    GPT2(one_layer, replace(gpt2.config, n_layer=1), folder=gpt2.folder).save_pretrained(tmp_path / "model")
    (tmp_path / "prompts").write_text("The king\n")
    (tmp_path / "text").write_text("The king and the sea")
    given = {"--model": "model", "--prompts": "prompts", "--text": "text"}
    done = command("parity", "--json", *(part for name, file in given.items() for part in (name, str(tmp_path / file))))
    assert done.returncode == 0, done.stderr
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert {check["verdict"] for check in checks} <= {"same", "near-tie"}
    assert next(check["note"] for check in checks if check["name"].startswith("perplexity")).endswith("5 tokens")


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

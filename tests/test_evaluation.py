"""Likelihoods of many continuations, the distance of reduced precision from float32, answers that are kept."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import random_ids, reference_logits, reference_model

from gpt2_np import GPT2
from gpt2_np.cli import main
from gpt2_np.evaluation import divergence, likelihoods, published
from gpt2_np.evaluation.answer_file import Answers, fingerprint
from gpt2_np.evaluation.likelihoods import Limits, log_likelihoods

ROOT = Path(__file__).parent.parent
TEXT = "The old king had three sons. The youngest went into the forest, and there he met a wolf. " * 3


@pytest.fixture(scope="module")
def exact(small: Path) -> GPT2:
    """The small model in float64."""
    return GPT2.from_pretrained(small, dtype="float64", backend="numpy")


def requests(seed: int, documents: int, beginning: int = 0) -> list[tuple[list[int], list[int]]]:
    """Contexts of any lengths, some behind a common beginning, with choices; some choices begin with others."""
    random = np.random.default_rng(seed)
    common, found = random.integers(0, 97, beginning).tolist(), []
    for number in range(documents):
        own = random.integers(0, 97, random.integers(1, 30)).tolist()
        context = [*common, *own] if number % 3 else own * 3
        choices = [random.integers(0, 97, random.integers(1, 9)).tolist() for _ in range(3)]
        found += [(context, one) for one in [*choices, choices[0][:1], choices[1]]]
    return found


def expected(context: list[int], ids: list[int], positions: int) -> tuple[float, bool]:
    """By transformers in float64, one request at a time."""
    model = reference_model().double()
    whole = [*context, *ids][-(positions + 1) :]
    logits = torch.tensor(reference_logits(model, [whole[:-1]])[0, -len(ids) :])
    scores = logits.log_softmax(-1)[range(len(ids)), ids]
    return float(scores.sum()), bool((logits.argmax(-1) == torch.tensor(ids)).all())


@pytest.mark.parametrize(
    ("seed", "beginning", "context", "tokens"), [(0, 0, None, 1024), (1, 40, None, 200), (2, 20, 32, 64)]
)
def test_every_continuation_gets_what_transformers_gives_it_alone(
    exact: GPT2, seed: int, beginning: int, context: int | None, tokens: int
) -> None:
    asked = [*requests(seed, 12, beginning), ([5], random_ids(1, 32)[0].tolist())]
    told: dict[int, Any] = {}
    found = log_likelihoods(exact, asked, context=context, tokens=tokens, answered=told.__setitem__)
    assert [told[number] for number in range(len(asked))] == found
    for (before, ids), (value, greedy) in zip(asked, found, strict=True):
        right, best = expected(before, ids, context or 64)
        assert value == pytest.approx(right, abs=1e-9)
        assert greedy == best
    greedy = int(exact([1, 2, 3])[-1].argmax())
    assert log_likelihoods(exact, [([1, 2, 3], [greedy]), ([1, 2, 3], [])])[0][1]
    assert log_likelihoods(exact, [([1], [])]) == [(0.0, True)]


def test_what_is_common_is_read_once(exact: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    run = type(exact).forward

    def counting(self: GPT2, ids: np.ndarray, **more: Any) -> np.ndarray:
        fed.append(ids.size)
        return run(self, ids, **more)

    monkeypatch.setattr(type(exact), "forward", counting)
    context, random = random_ids(1, 40)[0].tolist(), np.random.default_rng(3)
    log_likelihoods(exact, [(context, [token]) for token in range(20)])  # one token each: one row answers all
    assert sum(fed) == 40
    fed.clear()
    log_likelihoods(exact, [(context, [token, token]) for token in range(20)])
    assert sum(fed) == 39 + 20 * 2
    fed.clear()
    # Forty documents behind the same examples, read in many batches.
    asked = [([*context, *random.integers(0, 97, 5).tolist()], [1]) for _ in range(40)]
    log_likelihoods(exact, asked, tokens=64)
    assert sum(fed) == 40 + 40 * 5
    assert len(fed) > 5


@pytest.mark.parametrize("shape", [(7, 5), (40, 511), (70, 1300)])
def test_compiled_normalizers_are_those_of_numpy(shape: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).normal(0, 4, shape).astype(np.float32)
    logits[3, [2, 4]] = logits[3].max() + 1  # of equals the first is the likeliest
    places = np.arange(1, shape[0], 2)
    for mine, other in zip(
        likelihoods.normalizer_and_best(logits, places, compiled=True),
        likelihoods.normalizer_and_best(logits.astype(np.float64), places),
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)
    assert likelihoods.normalizer_and_best(logits, places, compiled=True)[1][3] == 2


def test_batches_keep_within_their_limits(exact: GPT2) -> None:
    limits = Limits(rows=7, tokens=120, scored=64, kept=300, context=64)
    units = likelihoods.grouped(requests(4, 30, 35), limits)
    clusters = likelihoods.clusters(units, limits)
    assert sorted(
        number for _, some in clusters for unit in some for asked in unit.asked for number, _ in asked
    ) == list(range(150))
    assert max(shared for shared, _ in clusters) >= 35
    for shared, some in clusters:
        assert len({unit.before[:shared] for unit in some}) == 1
        for batch in likelihoods.batches(some, shared, limits, 0):
            assert len(batch) == 1 or likelihoods.fits(batch, shared, limits)
            rows, width = sum(len(unit.tails) for unit in batch), max(unit.longest for unit in batch)
            assert rows <= 7
            assert rows * width <= 64


def test_what_cannot_be_scored_is_refused(exact: GPT2) -> None:
    with pytest.raises(ValueError, match="a context must have at least one id, got none"):
        log_likelihoods(exact, [([], [1])])
    with pytest.raises(ValueError, match="a continuation must have at most 64 tokens, the model's context, got 65"):
        log_likelihoods(exact, [([1], [2] * 65)])


# ---- reduced precision ---------------------------------------------------------------------------------------------


def test_divergence_is_torch_s_and_perplexity_is_that_of_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "BLOCK", 13)
    reference, reduced = GPT2.from_pretrained(), GPT2.from_pretrained(dtype="int4")
    done: list[int] = []
    first, row = divergence.divergences(reference, {"int4": reduced}, TEXT, progress=done.append)
    ids = [*reference.prompt_ids([]), *reference.tokenizer.encode(TEXT)]
    sides = [torch.tensor(model(ids[:-1])).double().log_softmax(-1) for model in (reference, reduced)]
    far = torch.nn.functional.kl_div(sides[1], sides[0], log_target=True, reduction="none").sum(-1)
    assert sum(done) == row.tokens == len(far) == len(ids) - 1
    assert row.mean == pytest.approx(float(far.mean()), rel=1e-3)
    assert row.p99 == pytest.approx(float(far.quantile(0.99)), rel=1e-3)
    assert row.largest == pytest.approx(float(far.max()), rel=1e-3)
    assert row.error == pytest.approx(float(far.std() / math.sqrt(len(far))), rel=1e-3)
    assert row.same_top == pytest.approx(float((sides[0].argmax(-1) == sides[1].argmax(-1)).double().mean()), abs=0.011)
    for model, one in ((reference, first), (reduced, row)):
        assert one.perplexity == pytest.approx(model.score(TEXT).perplexity, rel=1e-5)
    assert (first.dtype, first.mean, first.largest, first.same_top) == ("float32", 0.0, 0.0, 1.0)
    assert first.mebibytes > 2 * row.mebibytes


def test_long_texts_are_read_in_windows(small: Path) -> None:
    exact, other = (GPT2.from_pretrained(small, dtype=dtype, backend="numpy") for dtype in ("float64", "float32"))
    ids, seen = random_ids(1, 200)[0], []
    for (ours, theirs), targets in divergence.blocks([exact, other], ids, 64, 40):
        assert ours.shape == theirs.shape == (len(targets), 97)
        seen += targets.tolist()
    assert seen == ids[1:].tolist()


def test_divergence_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    main(["evaluate", "--divergence", str(tmp_path / "text.txt"), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16", "int8", "int4"]
    assert 0 < rows[1]["mean"] < rows[2]["mean"] < rows[3]["mean"]
    assert rows[1]["same_top"] > rows[3]["same_top"]
    main(["evaluate", "--divergence", str(tmp_path / "text.txt"), "--dtype", "int8"])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[2:]] == ["precision", "float32", "int8"]
    assert f"{rows[2]['mean']:.6f}" in shown[-1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give either --tasks or --divergence"),
        (["--tasks", "a", "--divergence", "b"], "give either --tasks or --divergence"),
        (["--divergence", "b", "--limit", "3"], "--limit is for --tasks"),
        (["--tasks", "b", "--stride", "3"], "--stride is for --divergence"),
        (["--divergence", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["--divergence", "empty.txt"], "there is nothing to compare: the text is empty"),
        (["--divergence", "text.txt", "--stride", "0"], "stride must be a whole number between 1 and 512, got 0"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("text.txt").write_text("The king")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *arguments])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


# ---- answers that are kept -----------------------------------------------------------------------------------------


def test_answers_are_of_one_model_and_of_one_request(tmp_path: Path, small: Path) -> None:
    names = {dtype: fingerprint(GPT2.from_pretrained(dtype=dtype), {}) for dtype in ("float32", "int8", "int4")}
    model = GPT2.from_pretrained()
    other = model.with_params(model.params._replace(wpe=model.params.wpe + 1))
    assert names["float32"] == fingerprint(GPT2.from_pretrained(), {})
    assert len({*names.values(), fingerprint(other, {}), fingerprint(model, {"max_length": 5})}) == 5
    with pytest.raises(ValueError, match="answers of a model with edits can't be kept"):
        fingerprint(model.with_edits({"blocks.0.mlp_out": lambda x: x}), {})
    for name, value in (("float32", [-1.5, True]), ("int8", [-2.5, False])):
        kept = Answers(tmp_path / "answers", names[name])
        with kept.opened():
            assert kept.get("loglikelihood", ("a", "b")) is None
            kept.put("loglikelihood", ("a", "b"), value)
    again = Answers(tmp_path / "answers", names["float32"])
    with again.opened():
        assert again.get("loglikelihood", ("a", "b")) == [-1.5, True]
        assert again.get("loglikelihood", ("ab", "")) is None
        assert again.get("generate_until", ("a", "b")) is None


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no file of answers, and it is long enough to be looked at. " * 20)
    before = (tmp_path / "text").read_bytes()
    kept = Answers(tmp_path / "text", "")
    with pytest.raises(ValueError, match="text must be a file of answers: file is not a database"), kept.opened():
        pass
    assert (tmp_path / "text").read_bytes() == before
    kept = Answers(tmp_path / "nowhere" / "answers", "")
    with pytest.raises(OSError, match="unable to open database file"), kept.opened():
        pass


# ---- what others published -----------------------------------------------------------------------------------------


def test_published_figures_can_be_missed() -> None:
    results: dict[str, Any] = {}
    for figure in published.HARNESS:
        results.setdefault(figure.task, {})[figure.metric] = figure.value + figure.within / 2
    asked: list[list[str]] = []

    def run(tasks: list[str]) -> dict[str, Any]:
        asked.append(tasks)
        return {"results": results}

    checks = list(published.check("openai-community/gpt2", run))
    assert asked == [["lambada_openai", "hellaswag", "wikitext"]]
    assert [check.verdict for check in checks] == ["same"] * 5
    assert "the paper's LAMBADA: 35.13" in checks[1].note
    for number, figure in enumerate(published.HARNESS):
        right = results[figure.task][figure.metric]
        results[figure.task][figure.metric] = figure.value - 2 * figure.within
        verdicts = [check.verdict for check in published.check("gpt2", run)]
        assert verdicts == ["same"] * number + ["mismatch"] + ["same"] * (4 - number)
        results[figure.task][figure.metric] = right
    assert list(published.check("tales", run)) == []
    assert all(len(row) == len(published.COLUMNS) for row in published.PAPER.values())


def test_without_the_harness_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "lm_eval.py").write_text("raise ModuleNotFoundError('blocked', name=__name__)\n")
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    code = "from gpt2_np.evaluation import divergences, log_likelihoods\n"
    code += "try:\n    from gpt2_np.evaluation import HarnessModel\nexcept ImportError as error:\n    print(error)\n"
    code += "from gpt2_np.cli import main\nmain(['evaluate', '--tasks', 'a'])"
    line = "HarnessModel needs lm-evaluation-harness, which is not installed: pip install 'gpt2-np[evaluate]'\n"
    for what, printed in ((["-c", code], line), (["-m", "gpt2_np.evaluation"], "")):
        done = subprocess.run([sys.executable, *what], capture_output=True, text=True, env=given)
        assert (done.returncode, done.stdout, done.stderr) == (2, printed, f"error: {line}")

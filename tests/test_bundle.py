"""Golden bundles: a right port passes, and each deliberately wrong one is named at the operation that is wrong."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bundles import TINY, tensor
from bundles import right as right  # a fixture

from decoders import methods
from decoders import processors as P
from decoders.processors import dry, mirostat, penalties, top_p
from decoders.searches import beam_common
from gpt2_np import GPT2
from gpt2_np.engine import threaded
from gpt2_np.model import cache, ops
from gpt2_np.model import forward as model
from gpt2_np.parity import answers, bundle, cases, vectors


def wrong_names(folder: Path, port: GPT2 | None = None) -> list[str]:
    """The checks that fail for a port, in order."""
    bundle.answer(folder, TINY, port or GPT2.from_pretrained(TINY / "model", backend="numpy"))
    return [check.name for check in bundle.check(TINY, folder) if not check.passed]


def test_the_committed_bundle_is_passed_in_float32_by_every_backend(tmp_path: Path) -> None:
    for backend in ("numpy", "numba"):
        assert wrong_names(tmp_path / backend, GPT2.from_pretrained(TINY / "model", backend=backend)) == []


def test_the_committed_vectors_are_what_they_are_made_of() -> None:
    assert json.loads((TINY / "decoders.json").read_text()) == json.loads(json.dumps(vectors.make()))


def test_every_processor_has_vectors() -> None:
    modules = [importlib.import_module(f"decoders.processors.{one.name}") for one in pkgutil.iter_modules(P.__path__)]
    there = {
        one
        for module in modules
        for name, one in vars(module).items()
        if getattr(one, "__module__", "") == module.__name__
        and not name.startswith("_")
        and (
            list(inspect.signature(one.__call__).parameters) == ["self", "ids", "scores"]
            if isinstance(one, type) and not inspect.isabstract(one)
            else inspect.isfunction(one) and list(inspect.signature(one).parameters)[:2] == ["ids", "scores"]
        )
    }
    asked = set()
    for name, arguments in cases.CASES:
        built = cases.BUILD[name](*[tuple(one) if isinstance(one, list) else one for one in arguments])
        asked.add(built.func if isinstance(built, partial) else getattr(built, "kind", type(built)))
    assert len(there) > 30
    assert there == asked


def test_every_vector_has_a_name_of_its_own() -> None:
    stated = [*methods.every(), *map(methods.profile, methods.PROFILES)]
    names = [one.name for method in stated for one in method.vectors]
    assert len(names) == len(set(names))
    assert all(one.cases for method in stated for one in method.vectors)


def test_a_lowest_number_hides_no_other_score() -> None:
    # What SynthID writes for "never" is 1e38 times as large as its neighbours: each score is judged by itself.
    truth = [-3.4028235e38, 1.0, 2.0]

    def right(*theirs: float | None) -> bool:
        return answers.scores("x", {"out": truth, "arguments": []}, list(theirs), 0.0).passed

    assert right(*truth)
    assert not right(truth[0], 1.001, 2.0)
    assert not right(None, 1, 2)
    assert not right(truth[0] / 2, 1, 2)


def test_the_page_names_every_processor_s_arguments_in_their_order() -> None:
    page = (Path(__file__).parent.parent / "docs/bundles.md").read_text()
    rows = [re.split(r" ?(?<!\\)\| ?", row) for row in page[page.index("## The processors") :].splitlines()]
    listed = {name: row[2] for row in rows if len(row) == 5 for name in re.findall(r"`(.*?)`", row[1])}
    for name, arguments in cases.CASES:
        count = len(re.sub(r"\(.*?\)|\[.*\]", "", listed[name]).split(",")) if listed[name].strip() else 0
        assert len(arguments) <= count, f"{name} has {len(arguments)} arguments; the page lists {listed[name]!r}"


def test_a_processor_that_is_lacking_is_left_out(right: Path, tmp_path: Path) -> None:
    shutil.copytree(right, tmp_path / "theirs")
    change(tmp_path / "theirs/answers.json", lambda a: a["decoders"].__setitem__(0, None))
    found = list(bundle.check(TINY, tmp_path / "theirs"))
    before = sum(check.verdict == "same" for check in bundle.check(TINY, right))
    assert sum(check.verdict == "same" for check in found) == before - 1
    assert all(check.passed for check in found)


def exact_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ops.ACTIVATIONS, "gelu_new", ops.gelu)


def transposed_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    right = threaded.linear
    monkeypatch.setattr(threaded, "linear", lambda x, w, b: right(x, w.T if w.shape[0] == w.shape[1] else w, b))


def no_final_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    right = model.layer_norm

    def skip(x, p, config, ops, tap):
        if getattr(tap, "prefix", "").startswith("ln_final"):
            tap("scale", np.ones_like(x[..., :1]))
            tap("normalized", x)
            return x
        return right(x, p, config, ops, tap)

    monkeypatch.setattr(model, "layer_norm", skip)


def small_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.layer_norm_scale
    monkeypatch.setattr(ops, "layer_norm_scale", lambda x, epsilon: right(x, epsilon / 10))


def cache_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cache.KVCache.advance
    monkeypatch.setattr(cache.KVCache, "advance", lambda self, T: right(self, T + 1 if self.lengths[0] == 0 else T))


def swapped_top_p(monkeypatch: pytest.MonkeyPatch) -> None:
    right = top_p.TopP.__call__
    monkeypatch.setattr(top_p.TopP, "__call__", lambda self, ids, s: right(top_p.TopP(1 - self.top_p), ids, s))


def inverted_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    right = penalties.RepetitionPenalty.__call__
    monkeypatch.setattr(
        penalties.RepetitionPenalty,
        "__call__",
        lambda self, ids, s: right(penalties.RepetitionPenalty(1 / self.penalty), ids, s),
    )


def prompt_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    right = beam_common.completion

    def completion(one):
        done = right(one)
        done.score = done.score * len(one.ids) / (len(one.ids) + len(vectors.PROMPT))
        return done

    monkeypatch.setattr(beam_common, "completion", completion)


def dry_counts_one_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    right = dry.DRY.penalty
    monkeypatch.setattr(dry.DRY, "penalty", lambda self, length: right(self, length - 1))


def mirostat_starts_at_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mirostat.Mirostat.limit
    monkeypatch.setattr(mirostat.Mirostat, "limit", lambda self, text: right(self, text) - self.tau)


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        (exact_gelu, "0/blocks.0.mlp.post"),
        (transposed_projection, "0/blocks.0.attn_out"),
        (no_final_norm, "0/ln_final.scale"),
        (small_epsilon, "0/blocks.0.ln1.scale"),
        (cache_off_by_one, "0/stepwise"),
        (swapped_top_p, "tokens: sampling, top-p 0.8, prompt 0"),
        (inverted_penalty, "processor: repetition_penalty"),
        (dry_counts_one_too_few, "processor: dry"),
        (mirostat_starts_at_its_target, "processor: mirostat_1"),
        (prompt_counts, "beams: 3 beams"),
    ],
)
def test_a_wrong_port_is_named(mistake: Callable, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    wrong = wrong_names(tmp_path)
    assert wrong[0] == named
    if mistake is swapped_top_p:
        assert "processor: top_p" in wrong


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    started = [sys.executable, "-c", "from gpt2_np.cli import main; main()", *map(str, arguments)]
    return subprocess.run(started, capture_output=True, text=True, timeout=120)


def test_export_and_check_from_the_command_line(tmp_path: Path) -> None:
    done = command("parity", "export", tmp_path / "bundle", "--model", TINY / "model", "--ids", "1 2 3", "--ids", "4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle/model/model.safetensors").is_file()
    port = GPT2.from_pretrained(TINY / "model")
    bundle.answer(tmp_path / "mine", tmp_path / "bundle", port)
    done = command("parity", "check", tmp_path / "bundle", "--against", tmp_path / "mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 wrong" in done.stdout
    answers = json.loads((tmp_path / "mine/answers.json").read_text())
    answers["decoders"][0][0] = 7.0
    (tmp_path / "mine/answers.json").write_text(json.dumps(answers))
    done = command("parity", "check", tmp_path / "bundle", "--against", tmp_path / "mine")
    assert done.returncode == 1
    assert f"the first that goes wrong: processor: {cases.CASES[0][0]}" in done.stdout


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b, t: (b / "bundle.json").unlink(), "holds no bundle.json"),
        (lambda b, t: (b / "bundle.json").write_text("{}"), "is not a parity bundle"),
        (
            lambda b, t: (b / "bundle.json").write_text('{"format": "gpt2_np parity bundle", "version": 9}'),
            "must be version 1 of 'gpt2_np parity bundle', got version 9",
        ),
        (lambda b, t: (t / "activations.safetensors").unlink(), "holds no activations.safetensors"),
        (
            lambda b, t: (t / "activations.safetensors").write_bytes((b / "activations.safetensors").read_bytes()[:-9]),
            "is not a sound safetensors file",
        ),
        (lambda b, t: (t / "answers.json").write_text("[[["), "answers.json is not valid JSON"),
        (lambda b, t: (t / "answers.json").write_text("[" * 100_000), "nested too deeply"),
        (lambda b, t: (t / "answers.json").write_text("[1]"), "answers.json must hold a JSON object, got list"),
        (lambda b, t: (t / "answers.json").write_text('{"tokens": [[1]]}'), "tokens must have one answer to each"),
        (lambda b, t: (t / "answers.json").write_text('{"beams": null}'), "beams must have one answer to each"),
        (
            lambda b, t: change(t / "answers.json", lambda a: a["decoders"].__setitem__(0, [10**400] * 8)),
            "answers.json can't be read: decoders 0 must be a list of scores, numbers or null, got ",
        ),
        (lambda b, t: change(t / "answers.json", lambda a: a["decoders"].__setitem__(0, [1.0])), "can't be read"),
        (lambda b, t: change(t / "answers.json", lambda a: a["beams"].__setitem__(0, [{"ids": [1]}])), "can't be read"),
        (lambda b, t: change(b / "bundle.json", lambda a: a.pop("order")), "order must be a list, got None"),
        (lambda b, t: change(b / "bundle.json", lambda a: a.update(tolerance=9)), "tolerance must be between 0 and 1"),
        (lambda b, t: (b / "decoders.json").write_text("[]"), "must hold lists of processors and beams"),
        (
            lambda b, t: change(b / "decoders.json", lambda a: a["beams"].append(3)),
            "beams 6 must be an object with name",
        ),
        (
            lambda b, t: change(b / "bundle.json", lambda a: a["tokens"].append({})),
            "must be an object with strategy, got",
        ),
        (lambda b, t: (b / "texts.json").write_text("{}"), "texts.json must hold a list of texts"),
        (lambda b, t: tensor(b, "0/embed", None), "lacks 0/embed, which bundle.json's order names"),
        (lambda b, t: tensor(b, "0/embed", np.nan), "0/embed must hold numbers or -inf, got NaN or +inf"),
        (lambda b, t: tensor(b, "0/embed", 1, "i8"), "0/embed must be F32, F16, BF16 or F64, got I64"),
        (lambda b, t: tensor(t, "0/embed", 1, "F8_E4M3"), "0/embed must be F32, F16, BF16 or F64, got F8_E4M3"),
        (lambda b, t: tensor(t, "0/embed", 1, "BOOL"), "0/embed must be F32, F16, BF16 or F64, got BOOL"),
    ],
)
def test_spoilt_bundles_are_one_line(spoil: Callable, message: str, right: Path, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "bundle")
    shutil.copytree(right, tmp_path / "theirs")
    spoil(tmp_path / "bundle", tmp_path / "theirs")
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as error:
        list(bundle.check(tmp_path / "bundle", tmp_path / "theirs"))
    assert "\n" not in str(error.value)


def change(path: Path, spoil: Callable) -> None:
    """A JSON file after `spoil` changed what it holds."""
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


def test_a_spoilt_bundle_on_the_command_line(tmp_path: Path) -> None:
    done = command("parity", "check", tmp_path, "--against", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {tmp_path} holds no bundle.json\n")
    done = command("parity", "export", tmp_path / "new", "--model", TINY / "model", "--ids", "1 x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --ids must be whole numbers separated by spaces, got '1 x'\n"


def test_a_bundle_of_another_model_is_refused(small: Path, tmp_path: Path) -> None:
    bundle.export(tmp_path / "other", str(small), [[1, 2, 3, 4, 5]])
    bundle.answer(tmp_path / "theirs", TINY, GPT2.from_pretrained(TINY / "model"))
    with pytest.raises(ValueError, match=r"must be .*, got .*; is it of this model\?"):
        list(bundle.check(tmp_path / "other", tmp_path / "theirs"))

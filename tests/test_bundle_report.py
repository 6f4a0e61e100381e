"""What a bundle tells a porter: infinities, what was left out, tolerances, tokenizers, dtypes; and full disks."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import TINY, tensor
from bundles import right as right  # a fixture
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_tokenizer
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.model.params import map_arrays
from gpt2_np.parity import answers, bundle, texts
from gpt2_np.system import files
from gpt2_np.weights import hub
from gpt2_np.weights.load import floats


def test_where_infinity_is_missing_is_named(right: Path, tmp_path: Path) -> None:
    """A mask of −1e9, which softmax can't tell from −∞, differs by infinity and not by the rounding elsewhere."""
    shutil.copytree(right, tmp_path / "theirs")
    tensors = load_file(right / "activations.safetensors")
    masked = tensors["0/blocks.0.attn.attn_scores"]
    masked[np.isneginf(masked)] = -1e9
    save_file(tensors, tmp_path / "theirs/activations.safetensors")
    asked = json.loads((TINY / "decoders.json").read_text())["processors"]
    number, name = next((at, case["name"]) for at, case in enumerate(asked) if case["out"][6] is None)
    change(tmp_path / "theirs/answers.json", lambda a: a["decoders"][number].__setitem__(6, -1e9))
    wrong = [one for one in bundle.check(TINY, tmp_path / "theirs") if not one.passed]
    heads, T = masked.shape[1:3]
    more = heads * T * (T - 1) // 2 - 1
    assert [(one.name, one.difference, one.where) for one in wrong[:1]] == [
        ("0/blocks.0.attn.attn_scores", np.inf, "[0, 0, 0, 1]")
    ]
    assert wrong[0].note == f"-1e+09 where -inf was expected, and so at {more} more places"
    assert len(wrong) == 2
    assert (wrong[1].name, wrong[1].difference, wrong[1].where) == (f"processor: {name}", np.inf, "[6]")
    assert wrong[1].note.startswith("-1e+09 where -inf was expected: [")
    done = CliRunner().invoke(cli, ["parity", "check", str(TINY), "--against", str(tmp_path / "theirs")])
    assert done.exit_code == 1
    assert "attn_scores              infinitely off at [0, 0, 0, 1]  -1e+09 where -inf was expected, and" in done.stdout


@given(
    truth=st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 3.0]), min_size=1, max_size=6),
    spoilt=st.sampled_from([np.nan, np.inf, -np.inf, -1e9, 7.0]),
    data=st.data(),
)
def test_what_differs_most_is_found(truth: list[float], spoilt: float, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(truth) - 1))
    theirs = np.array(truth)
    assert answers.apart(theirs, np.array(truth))[0] == 0
    theirs[place] = spoilt
    far, where, note = answers.apart(theirs, np.array(truth))
    alike = spoilt == truth[place]
    assert (far > 0, where) == (not alike, (0,) if alike else (place,))
    assert bool(note) == (not alike and not np.isfinite([spoilt, truth[place]]).all())


def test_whatever_is_left_out_is_not_wrong(right: Path, tmp_path: Path) -> None:
    everything = list(bundle.check(TINY, right))
    assert {one.verdict for one in everything if not one.name.startswith("text: ")} == {"same"}
    theirs = tmp_path / "theirs"
    shutil.copytree(right, theirs)
    tensors = load_file(right / "activations.safetensors")
    for name in ("0/blocks.1.attn.pattern", "1/stepwise"):
        del tensors[name]
    save_file(tensors, theirs / "activations.safetensors")

    def some(given: dict) -> None:
        for key in ("tokens", "decoders", "beams"):
            given[key][1] = None

    change(theirs / "answers.json", some)
    found = list(bundle.check(TINY, theirs))
    assert [one.name for one in found] == [one.name for one in everything]
    gone = [one.name for one in found if one.verdict == "left out" and not one.name.startswith("text: ")]
    assert len(gone) == 5
    assert all(one.passed for one in found)
    shown = CliRunner().invoke(cli, ["parity", "check", str(TINY), "--against", str(theirs)])
    absent = 5 + len(texts.TEXTS)
    assert (shown.exit_code, shown.stdout) == (0, f"{len(found) - absent} right, 0 wrong, {absent} left out\n")
    (theirs / "answers.json").unlink()  # who has no decoders
    assert all(one.passed for one in bundle.check(TINY, theirs))


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16)


def test_a_port_in_float16_passes_with_a_tolerance(right: Path, tmp_path: Path) -> None:
    """Weights and every activation rounded to float16, as a port keeps them."""
    port = GPT2.from_pretrained(TINY / "model", dtype="float64", backend="numpy")
    rounded = port.with_params(map_arrays(port.params, lambda x: half(x).astype(np.float64)))
    bundle.answer(tmp_path, TINY, rounded)
    tensors = {name: half(one) for name, one in load_file(tmp_path / "activations.safetensors").items()}
    save_file(tensors, tmp_path / "activations.safetensors")
    change(tmp_path / "answers.json", lambda a: a.pop("tokens"))
    arguments = ["parity", "check", str(TINY), "--against", str(tmp_path)]
    assert CliRunner().invoke(cli, arguments).exit_code == 1
    assert CliRunner().invoke(cli, [*arguments, "--tolerance", "0.01"]).exit_code == 0
    tensors["0/blocks.0.mlp.post"] += np.float16(0.1)
    save_file(tensors, tmp_path / "activations.safetensors")
    assert CliRunner().invoke(cli, [*arguments, "--tolerance", "0.01"]).exit_code == 1
    for wrong in ("0", "1", "nan"):
        done = command(*arguments, "--tolerance", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: tolerance must be between 0 and 1, got {float(wrong)}\n"


def test_tokenizer_vectors(right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed ids are those of both tokenizers there are, and an implementation's are judged text by text."""
    stored = json.loads((TINY / "texts.json").read_text())
    tales = GPT2.from_pretrained()
    assert texts.make(tales) == stored
    twin = plain_tokenizer(hub.BUNDLED / "tales")
    assert [twin.encode(case["text"]) for case in stored["texts"]] == [case["ids"] for case in stored["texts"]]
    shutil.copytree(right, tmp_path / "theirs")
    given = texts.answer(stored, tales)
    change(tmp_path / "theirs/answers.json", lambda a: a.update(texts=given))
    found = [one for one in bundle.check(TINY, tmp_path / "theirs") if one.name.startswith("text: ")]
    assert [one.verdict for one in found] == ["same"] * len(texts.TEXTS)
    number = next(at for at, case in enumerate(stored["texts"]) if "DON'T" in case["text"])
    given[number] = [*given[number][:3], 5, *given[number][4:]]
    given[0] = None
    change(tmp_path / "theirs/answers.json", lambda a: a.update(texts=given))
    found = [one for one in bundle.check(TINY, tmp_path / "theirs") if one.name.startswith("text: ")]
    assert [one.verdict for one in found].count("same") == len(found) - 2
    assert (found[0].verdict, found[number].verdict, found[number].where) == ("left out", "mismatch", "token 3")
    assert found[number].name.startswith("text: \"don't DON'T")


def test_a_bundle_of_a_model_with_a_tokenizer_has_its_texts(tmp_path: Path) -> None:
    bundle.export(tmp_path / "bundle", "tales", [[5]], tokens=1)
    bundle.answer(tmp_path / "theirs", tmp_path / "bundle", GPT2.from_pretrained())
    found = list(bundle.check(tmp_path / "bundle", tmp_path / "theirs"))
    assert {one.verdict for one in found} == {"same"}
    assert sum(one.name.startswith("text: ") for one in found) == len(texts.TEXTS)


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    started = [sys.executable, "-c", "from gpt2_np.cli import main; main()", *map(str, arguments)]
    return subprocess.run(started, capture_output=True, text=True, timeout=120)


def test_bfloat16_is_read_and_nan_is_a_mismatch_with_its_place(right: Path, tmp_path: Path) -> None:
    shutil.copytree(right, tmp_path / "theirs")
    one = load_file(right / "activations.safetensors")["1/embed"]
    tensor(tmp_path / "theirs", "1/embed", np.nan)
    (wrong,) = [check for check in bundle.check(TINY, tmp_path / "theirs") if not check.passed]
    assert (wrong.name, wrong.difference, wrong.where) == ("1/embed", np.inf, "[0, 0, 0]")
    assert re.fullmatch(rf"nan where \S+ was expected, and so at {one.size - 1} more places", wrong.note)
    torch.manual_seed(0)
    spread = {"x": torch.randn(3, 4).bfloat16(), "y": torch.randn(2).half()}
    save_torch(spread, tmp_path / "some.safetensors")
    read = floats(tmp_path / "some.safetensors")
    assert {name: x.dtype for name, x in read.items()} == {"x": np.float32, "y": np.float16}
    assert all(np.array_equal(read[name], x.float().numpy()) for name, x in spread.items())


def change(path: Path, spoil: Callable) -> None:
    """A JSON file after `spoil` changed what it holds."""
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("before", [False, True], ids=["new", "over a sound one"])
def test_a_full_disk_leaves_no_bundle(before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file the disk has no room for, what is left is no bundle, and says so."""
    folder, writes = tmp_path / "bundle", 0
    right_writer, room = files.write_whole, 10**9

    def write_whole(path: Path, content: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes > room:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        right_writer(path, content)

    for module in (bundle, bundle.training):
        monkeypatch.setattr(module, "write_whole", write_whole)
    monkeypatch.setattr(bundle.training, "tensors", lambda about, exact: {"loss": np.zeros(1)})
    monkeypatch.setattr(bundle.vectors, "make", lambda: {"processors": [], "table": [], "beams": []})

    def export() -> None:
        bundle.export(folder, str(TINY / "model"), [[5]], tokens=1, with_training=True)

    export()
    most = writes
    assert most == 7  # activations, decoders, training twice, the model's two, bundle.json
    bundle.read(folder)
    for room in range(most):
        if not before:
            shutil.rmtree(folder)
        writes = 0
        with pytest.raises(OSError, match="No space left on device"):
            export()
        for task in (lambda: list(bundle.check(folder, TINY)), lambda: bundle.read(folder)):
            with pytest.raises(FileNotFoundError, match=r"holds no bundle\.json"):
                task()
        assert not list(folder.rglob("*.part"))
        if before:
            room = 10**9
            export()

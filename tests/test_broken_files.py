"""What the file fuzzer found, by kind: each is refused in one line that names the file and what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")

from file_kinds import LEARN, TRAIN, make
from surroundings import Around, run_command

from gpt2_np.system.errors import in_words
from gpt2_np.system.files import write_whole

OF = ["-m", "model"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("kinds") / "sound")


@pytest.fixture
def place(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may break."""
    shutil.copytree(sound, tmp_path / "here", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refused(*arguments: str) -> str:
    code, said, faults = run_command(arguments, Around())
    assert (code, faults) == (2, []), said
    return said


def tensors(path: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the tensors of a safetensors file, and leave what is written beside them."""
    found = load_file(path)
    with safe_open(path, framework="np") as file:
        about = file.metadata()
    change(found)
    save_file(found, path, about)


def fields(path: str, change: Callable[[Any], object]) -> None:
    """Change what a JSON file says."""
    found = json.loads(Path(path).read_text())
    change(found)
    Path(path).write_text(json.dumps(found))


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def test_a_parquet_file_whose_pages_are_broken_is_named(place: Path) -> None:
    for path in ("scores/part-00000.parquet", "rows/b.parquet"):
        data = Path(path).read_bytes()  # the footer, at the end, stays whole
        Path(path).write_bytes(data[:4] + b"\xff" * 40 + data[44:])
    assert "scores/part-00000.parquet is not a sound Parquet file" in refused(
        "corpus", "merge", "scores", "scores", "m"
    )
    assert "rows/b.parquet is not a sound Parquet file" in refused("corpus", "score", "rows", "out", *OF)


def test_text_in_parquet_that_is_not_utf_8_is_named(place: Path) -> None:
    data = Path("rows/b.parquet").read_bytes()
    assert data.count(b"hat") > 0
    Path("rows/b.parquet").write_bytes(data.replace(b"hat", b"h\xe4t"))
    assert "is not a sound Parquet file: byte 1 is not UTF-8" in refused(
        "corpus", "score", "rows/b.parquet", "out", *OF
    )


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda about: about["parts"][0].pop(), "parts"),
        (lambda about: about["parts"][0].__setitem__(2, -1), "parts"),
        (lambda about: about.update(task="write"), "task"),
        (lambda about: about.update(options=[]), "options"),
        (lambda about: about["inputs"][0].update(rows="3"), "inputs"),
        (lambda about: about.pop("ids"), "ids"),
    ],
)
def test_a_run_s_description_that_can_t_be_is_named(place: Path, change: Callable, wrong: str) -> None:
    fields("scores/_corpus.json", change)
    for line in (["corpus", "merge", "scores", "scores", "m"], ["corpus", "score", "rows", "scores", *OF]):
        assert f"scores/_corpus.json doesn't describe a run: its {wrong} can't be" in refused(*line)


# ---- bundles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("theirs/answers.json", lambda a: a["tokens"].__setitem__(0, 3), "tokens 0 must be a list of ids, got 3"),
        ("theirs/answers.json", lambda a: a["beams"].__setitem__(1, [[1]]), "beams 1 must be a list of objects with"),
        (
            "bundle/decoders.json",
            lambda a: a["processors"][2].update(out="x"),
            "the answer to decoders 2 must be a list",
        ),
        ("bundle/texts.json", lambda a: a["texts"][0].update(ids=None), "the answer to texts 0 must be a list of ids"),
        ("bundle/training.json", lambda a: a["order"].__setitem__(0, {}), "order must be a list of names, got {}"),
        ("bundle/training.json", lambda a: a["order"].append(None), "order must be a list of names, got None"),
    ],
)
def test_what_a_bundle_or_an_answer_can_t_hold_is_named(place: Path, path: str, change: Callable, message: str) -> None:
    fields(path, change)
    said = refused("parity", "check", "bundle", "--against", "theirs")
    assert message in said
    assert Path(path).parent.name in said


def test_a_bundle_that_names_fewer_parameters_than_it_has_norms(place: Path) -> None:
    fields("bundle/training.json", lambda about: about.update(parameters=[]))
    tensors("theirs/training.safetensors", lambda x: x.update({"adamw/norms/1": x["adamw/norms/1"] + 1}))
    code, said, faults = run_command(["parity", "check", "bundle", "--against", "theirs"], Around())
    assert (code, said, faults) == (1, "", [])


def test_null_in_the_place_of_an_object(place: Path) -> None:
    for path, line in [
        ("captured/capture.json", ["corpus", "merge", "captured", "m"]),
        ("theirs/answers.json", ["parity", "check", "bundle", "--against", "theirs"]),
    ]:
        Path(path).write_text("null")
        said = refused(*line)
        assert "must hold a JSON object, got null" in said
        assert path in said


# ---- captures, lenses, figures ---------------------------------------------------------------------------------------

CHUNK = "captured/chunk-00000.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.update({"x.ids": x.pop("3.ids")}), "a text's number is 'x'"),
        (lambda x: x.pop("2.blocks.0.resid_pre"), "2.blocks.0.resid_pre must be F32, got nothing"),
        (lambda x: x.update({"1.ids": x["1.ids"].astype(np.float32)}), "1.ids must be I64, got F32"),
        (
            lambda x: x.update({"1.blocks.0.resid_pre": x["1.blocks.0.resid_pre"][:3].copy()}),
            "1.blocks.0.resid_pre must have a vector for each of 12 tokens",
        ),
    ],
)
def test_a_chunk_that_is_not_its_capture_s_is_named(place: Path, change: Callable, message: str) -> None:
    tensors(CHUNK, change)
    said = refused("internals", "train-dictionary", "captured", "new", *LEARN, *OF)
    assert CHUNK in said
    assert message in said


@pytest.mark.parametrize(
    "about",
    [[], {}, {"names": "ids"}, {"names": [1]}, {"names": ["ids"], "dtype": "int8"}, {"names": ["ids"], "model": 3}],
)
def test_a_capture_s_description_that_can_t_be_is_named(place: Path, about: Any) -> None:
    for folder in ("captured", "shards"):
        Path(folder, "capture.json").write_text(json.dumps(about))
        said = refused("corpus", "merge", folder, "m")
        assert f"{folder}/capture.json does not describe a capture: " in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("squares", 1e200, "squares must be between -1e+100 and 1e+100, got 1e+200"),
        ("l0", float("nan"), "l0 must be between"),
        ("tokens", -3, "tokens must be between 0 and"),
        ("tokens", 0, "its counts don't agree: 0 tokens"),
        ("batches", 0, "its counts don't agree"),
        ("fired", 1.5, "fired must be int64, got float64"),
    ],
)
def test_figures_that_no_pass_could_give_are_refused(place: Path, name: str, value: float, message: str) -> None:
    tensors("figures.safetensors", lambda x: x.update({name: np.full(x[name].shape, value)}))
    said = refused("corpus", "merge", "figures.safetensors", "figures.safetensors", "m")
    assert "figures.safetensors holds no figures of a dictionary" in said
    assert message in said


def test_figures_of_quotients_that_are_no_numbers_are_figures(place: Path) -> None:
    tensors("figures.safetensors", lambda x: x.update({"legacy": np.array(-np.inf)}))
    code, said, faults = run_command(["corpus", "merge", "figures.safetensors", "m"], Around())
    assert (code, said, faults) == (0, "", [])


def test_a_folder_in_the_place_of_a_lens_is_named(place: Path) -> None:
    assert refused("internals", "merge-lenses", "new", "rows") == "error: rows: Is a directory\n"
    assert refused("internals", "lens", "the", "--jacobian", "rows", *OF) == "error: rows: Is a directory\n"


@pytest.mark.parametrize("value", ["x", "-1", "9" * 5000, "1.5"])
def test_a_lens_s_count_that_is_no_number_is_named(place: Path, value: str) -> None:
    found = load_file("jacobian.safetensors")
    with safe_open("jacobian.safetensors", framework="np") as file:
        about = file.metadata()
    save_file(found, "jacobian.safetensors", about | {"texts": value})
    said = refused("corpus", "merge", "jacobian.safetensors", "m")
    assert "jacobian.safetensors is not a Jacobian lens: its texts must be a whole number, got" in said


@pytest.mark.parametrize(("kind", "option"), [("tuned", "--tuned"), ("jacobian", "--jacobian")])
def test_a_lens_whose_logits_are_no_numbers_is_refused(place: Path, kind: str, option: str) -> None:
    def fill(found: dict[str, np.ndarray]) -> None:
        for one in found.values():
            one[:] = np.finfo(one.dtype).max / 2

    tensors(f"{kind}.safetensors", fill)
    said = refused("internals", "lens", "the", option, f"{kind}.safetensors", *OF)
    assert "what the lens reads overflows float32: its logits are no numbers" in said


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("added", ["x,1,2,3\n", "99999999999999999999,1\n", "3,\n", ",,,,\n", "9" * 5000])
def test_a_broken_line_of_a_loss_curve_is_left_out(place: Path, added: str) -> None:
    table = Path("run/loss.csv")
    before = table.read_text()
    table.write_text(before + added)
    code, said, faults = run_command(["train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF], Around())
    assert (code, faults) == (0, []), said
    lines = table.read_text().splitlines()
    assert len(lines) == len(before.splitlines())
    assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in before.splitlines()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("transformer.ln_f.weight"), "run/checkpoint-2/model.safetensors lacks 'ln_f.weight'"),
        (lambda x: x.update({"transformer.ln_f.bias": np.zeros(3, np.float32)}), "checkpoint-2/model.safetensors: "),
        (lambda x: x.update({"transformer.ln_f.bias": np.zeros(4, np.float16)}), "must be F32 or F64, got F16"),
    ],
)
def test_a_checkpoint_without_the_model_s_parameters(place: Path, change: Callable, message: str) -> None:
    tensors("run/checkpoint-2/model.safetensors", change)
    assert message in refused("train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("W_enc"), "W_enc must be there, float32 of the shape (4, 8)"),
        (lambda x: x.update(silent=x["silent"].astype(np.float64)), "silent must be there, int64 of the shape (8,)"),
        (lambda x: x.update(b_enc=np.zeros(8, np.int32)), "b_enc must be there, float32 of the shape (8,)"),
    ],
)
def test_a_checkpoint_without_the_dictionary_s_weights(place: Path, change: Callable, message: str) -> None:
    tensors("sae/checkpoint-2/training.safetensors", change)
    said = refused("internals", "train-dictionary", "captured", "sae", *LEARN, "--resume", *OF)
    assert f"sae/checkpoint-2/training.safetensors: {message}" in said


def test_a_file_in_the_place_of_a_loss_curve(place: Path) -> None:
    Path("run/loss.csv").write_text("a\n1\n")
    said = refused("train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF)
    assert "run/loss.csv is not a loss curve: its first column must be 'step', got 'a'" in said
    Path("run/loss.csv").write_text("step,other\n1,2,3\n")  # there is nothing to draw
    code, said, faults = run_command(["train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF], Around())
    assert (code, faults) == (0, []), said


def test_an_empty_loss_curve_is_begun_again(place: Path) -> None:
    Path("run/loss.csv").write_text("")  # a kill between making it and its first line
    code, said, faults = run_command(["train", "text.txt", "--out", "run", *TRAIN, "--resume", *OF], Around())
    assert (code, faults) == (0, []), said
    assert Path("run/loss.csv").read_text().startswith("step,")


# ---- what is no file, or none that is needed -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["\udcff", "a" * 300, "a..b", "a\0b", ".a"])
def test_a_host_that_is_no_name_is_one_line(place: Path, host: str) -> None:
    said = refused("serve", "--host", host, "--port", "0", "--api-key", "x", *OF)
    assert "host must be a machine's name or address, got" in said or "Name or service not known" in said


def test_too_few_pairs_are_told_with_their_file(place: Path) -> None:
    Path("few.txt").write_text("a\tb\n")
    said = refused("internals", "function-vector", "few.txt", "the", *OF)
    assert said == "error: few.txt must hold 6 pairs, --shots of them examples and one asked, got 1\n"


# ---- what all files share --------------------------------------------------------------------------------------------


def test_links_that_lead_in_a_circle_are_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.symlink_to("x")
    with pytest.raises(OSError, match="Too many levels of symbolic links") as error:
        write_whole(path, b"a")
    assert error.value.filename == str(path)


def test_a_codec_s_error_says_where_and_not_how_python_puts_it() -> None:
    with pytest.raises(UnicodeDecodeError) as error:
        b"ab\xff".decode("utf-8")
    assert in_words(error.value) == "byte 2 is not UTF-8"

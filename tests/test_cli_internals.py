"""`gpt2-np inspect` and `gpt2-np internals` on the bundled model: tables, pictures, files, and one-line refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.cli import internals_circuits as internals_circuits
from gpt2_np.cli import internals_corpus as internals_corpus
from gpt2_np.cli import internals_patching as internals_patching
from gpt2_np.cli.inspect import inspect_command
from gpt2_np.cli.internals import internals_group
from gpt2_np.internals.capture import Captured
from gpt2_np.internals.corpus import read_corpus
from gpt2_np.internals.lens import TunedLens, train_tuned_lens

pytestmark = pytest.mark.usefixtures("one_thread")

STORY = "Once upon a time there was a king who had three sons. The king said to his sons: go and find me a bird. "
CLEAN, CORRUPTED = "The king said to his mother", "The queen said to her mother"
ANSWER = ["--answer", " and", "--versus", ","]
PNG = b"\x89PNG"
CONFIG = GPT2.from_pretrained().config
L, H = CONFIG.n_layer, CONFIG.n_head


def run(*arguments: str | Path, group: click.Command = internals_group) -> str:
    result = CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False)
    return result.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(STORY * 6)
    (tmp_path / "corpus" / "b.txt").write_text("A girl lived in a small house. " * 20)
    return tmp_path / "corpus"


def test_inspect_writes_the_page(tmp_path: Path) -> None:
    assert run("Once <b>", "--out", tmp_path / "page.html", group=inspect_command) == f"{tmp_path}/page.html\n"
    assert "Once" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["attention", "A king had a son", "--layer", "1", "--head", "2"], (5, 5)),
        (["ablate", "The king said", *ANSWER], (L, H)),
        (["ablate", "The king said", "--answer", ",", "--what", "mlps"], (L, 1)),
        (["patch", CLEAN, CORRUPTED, *ANSWER], (L, 6)),
        (["patch", CLEAN, CORRUPTED, *ANSWER, "--point", "attn.z", "--over", "head"], (L, H)),
        (["path", CLEAN, CORRUPTED, *ANSWER, "--to", "blocks.4.attn.q:1", "--to", "unembed"], (L, H)),
        (["circuits"], (L, H)),
        (["circuits", "--kind", "qk"], (L, H)),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_every_sweep_prints_its_numbers_and_draws_them(arguments: list[str], shape: tuple, tmp_path: Path) -> None:
    printed = json.loads(run(*arguments, "--json", "--out", tmp_path / "picture.png"))
    assert np.shape(printed["values"]) == shape
    assert np.isfinite(printed["values"]).all()
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


def test_a_table_says_what_the_json_says() -> None:
    for arguments in (["ablate", "The king", "--answer", " was", "--what", "mlps"], ["circuits"]):
        values = np.array(json.loads(run(*arguments, "--json"))["values"])
        rows = [line.split() for line in run(*arguments).splitlines()[-L:]]
        np.testing.assert_allclose([[float(number) for number in row[1:]] for row in rows], values, atol=6e-4)


def test_heads_lens_and_one_head_in_words(tmp_path: Path) -> None:
    scores = json.loads(run("heads", "--length", "12", "--json"))
    assert np.shape(scores["induction"]) == (L, H)
    repeated = json.loads(run("heads", "--text", STORY, "--json", "--out", tmp_path / "heads.svg"))
    assert repeated != scores
    assert (tmp_path / "heads.svg").read_text().startswith("<?xml")
    looked = json.loads(run("lens", "Once upon a time", "--json", "--out", tmp_path / "lens.png"))
    assert np.shape(looked["top"]) == (L + 1, len(looked["tokens"]))
    assert looked["tokens"][0] in run("lens", "Once upon a time")
    words = json.loads(
        run("circuits", "--layer", "5", "--head", "0", "--count", "2", "--json", "--out", tmp_path / "eigenvalues.pdf")
    )
    assert len(words["directions"]) == 2
    assert "reads" in run("circuits", "--layer", "5", "--head", "0")
    wanted = run("circuits", "--layer", "4", "--head", "0", "--kind", "qk", "--out", tmp_path / "qk.png")
    assert "stands on" in wanted
    assert "looks for" in wanted


def test_a_tuned_lens_from_corpus_to_picture(corpus: Path, tmp_path: Path, gpt2: GPT2) -> None:
    curves = json.loads(run("tune", corpus, tmp_path / "lens.safetensors", "--json", "--out", tmp_path / "tune.png"))
    assert np.mean(curves["tuned lens"][:-1]) < np.mean(curves["logit lens"][:-1])
    looked = json.loads(run("lens", STORY, "--tuned", tmp_path / "lens.safetensors", "--json"))
    plain = json.loads(run("lens", STORY, "--json"))
    assert looked["top"][-1] == plain["top"][-1]
    assert looked["top"][1] != plain["top"][1]


def test_a_tuned_lens_is_judged_on_texts_it_has_not_seen(corpus: Path, tmp_path: Path, gpt2: GPT2) -> None:
    path = tmp_path / "lens.safetensors"
    told = json.loads(run("tune", corpus, path, "--length", "24", "--json"))
    texts = list(read_corpus(corpus, gpt2.tokenizer, length=24, start=gpt2.prompt_ids("")[0]))
    held = [text for number, text in enumerate(texts) if number % 10 == 1]
    fitted = [text for number, text in enumerate(texts) if number % 10 != 1]
    assert (told["held_out_texts"], told["positions"]) == (min(len(held), 20), sum(len(text) - 1 for text in fitted))
    saved, ours = TunedLens.load(path), train_tuned_lens(gpt2, fitted)
    np.testing.assert_allclose(saved.weight, ours.weight, atol=1e-5)
    seen = np.mean([saved(gpt2, text).divergence()[:, 1:].mean(1) for text in held[:20]], axis=0)
    np.testing.assert_allclose(told["tuned lens"], seen, atol=1e-4)


def test_what_is_too_little_to_tune_on_is_told(tmp_path: Path, gpt2: GPT2) -> None:
    (tmp_path / "little.txt").write_text(STORY)
    done = CliRunner().invoke(cli, ["internals", "tune", str(tmp_path / "little.txt"), str(tmp_path / "lens")])
    assert done.exit_code == 0
    few = len(gpt2.tokenizer.encode(STORY))
    assert "on the only text, which it was fitted on" in done.stdout
    assert done.stderr.splitlines()[-2:] == [
        "note: nothing could be held out of a single text: the numbers flatter the lens",
        f"note: {few} positions are few to fit on: a lens of width 320 wants at least 3,200",
    ]


def test_neuron_capture_and_steer(corpus: Path, tmp_path: Path, gpt2: GPT2) -> None:
    board = json.loads(run("neuron", "4", "10", corpus, "--examples", "2", "--json", "--out", tmp_path / "neuron.png"))
    values = [one["value"] for one in board["examples"]]
    assert 1 <= len(values) <= 2
    assert values == sorted(values, reverse=True)
    assert min(values) > 0
    assert "active at" in run("neuron", "4", "10", corpus)
    about = json.loads(run("capture", corpus, tmp_path / "run", "--names", "blocks.2.resid_pre", "--json"))
    captured = Captured(tmp_path / "run")
    assert about["texts"] == len(captured) >= 2
    cache = gpt2.run_with_cache(captured.ids(0), "blocks.2.resid_pre")[1]
    np.testing.assert_array_equal(captured[0, "blocks.2.resid_pre"], cache["resid_pre", 2][0])
    arguments = [
        "steer",
        "Once upon a time",
        "--towards",
        "the sea, the ship and the water",
        "--away",
        "the king",
        "--layer",
        "3",
        "--max-new-tokens",
        "12",
    ]
    texts = json.loads(run(*arguments, "--scale", "20", "--json", "--out", tmp_path / "steer.png"))
    assert texts["plain"] == gpt2.generate("Once upon a time", max_new_tokens=12).text
    assert texts["steered"] != texts["plain"]
    same = json.loads(run(*arguments, "--scale", "0", "--json"))
    assert same["steered"] == same["plain"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["patch", "The king", "The old king", *ANSWER], "equally many tokens, got 2 in .* and 3 in"),
        (["ablate", "The king", "--answer", " kingly"], "an answer must be one token, got ' kingly', which is"),
        (["ablate", "The king", *ANSWER, "--how", "mean"], "mean ablation needs reference texts"),
        (["path", CLEAN, CORRUPTED, *ANSWER, "--to", "blocks.1.attn.q:x"], "a receiver is POINT or POINT:HEAD"),
        (["circuits", "--layer", "1"], "--layer and --head go together"),
        (["attention", "A", "--layer", str(L), "--head", "0"], f"layer must be between 0 and {L - 1}, got {L}"),
        (["capture", "/nowhere", "/tmp/x", "--names", "embed"], "No such file or directory: '/nowhere'"),
        (["lens", "A", "--tuned", "/nowhere.safetensors"], "No such file or directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


def test_pictures_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"--out must end in one of .png, .* got '.*picture.xyz'"):
        run("circuits", "--model", "/nowhere", "--out", tmp_path / "picture.xyz")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match="pictures need matplotlib: pip install"):
        run("circuits", "--model", "/nowhere", "--out", tmp_path / "picture.png")


def test_without_matplotlib_every_table_is_still_printed() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from gpt2_np.cli import cli; "
    for arguments in (["lens", "A king"], ["patch", CLEAN, CORRUPTED, *ANSWER], ["heads", "--length", "4"], []):
        done = subprocess.run(
            [sys.executable, "-c", code + f"cli.main({['internals', *arguments]!r}, standalone_mode=False)"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout
        assert not done.stderr

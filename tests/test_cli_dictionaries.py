"""``gpt2-np internals`` with dictionaries, and their panel on the page of a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from click.testing import CliRunner
from dictionary_folders import random_dictionary

from gpt2_np import GPT2
from gpt2_np.cli import internals_corpus as internals_corpus
from gpt2_np.cli import internals_dictionaries as internals_dictionaries
from gpt2_np.cli import internals_dictionaries_made as internals_dictionaries_made
from gpt2_np.cli import main
from gpt2_np.cli.inspect import inspect_command
from gpt2_np.cli.internals import internals_group
from gpt2_np.internals import dictionaries
from gpt2_np.internals.page import inspect_page

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "The king said to his mother"
PNG = b"\x89PNG"
HOOK = "blocks.3.hook_resid_pre"
NAMES = {str(feature): f"name {feature}" for feature in range(1, 64, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dictionary with random weights, and names for half of the features."""
    shape = {"architecture": "topk", "d_in": 320, "d_sae": 64, "d_out": 320, "k": 5}
    made = random_dictionary(shape | {"hook_name": HOOK, "hook_name_out": HOOK, "metadata": {"feature_names": NAMES}})
    found = tmp_path_factory.mktemp("dictionary")
    dictionaries.save(made, found)
    return found


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("The king said: go! " * 20)
    return tmp_path / "a.txt"


def run(*arguments: object, group: Any = internals_group) -> str:
    result = CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False)
    return result.stdout


def test_features_of_a_prompt(gpt2: GPT2, folder: Path, tmp_path: Path) -> None:
    found = dictionaries.fires(gpt2, dictionaries.load(folder), PROMPT)
    told = json.loads(run("features", PROMPT, "--dictionary", folder, "--json", "--top", 3))
    assert told["tokens"] == gpt2.tokenizer.tokens(found.ids.tolist())
    for at, row in enumerate(told["features"]):
        numbers, values = found.at(at, 3)
        assert [one["feature"] for one in row] == numbers.tolist()
        np.testing.assert_allclose([one["value"] for one in row], values, atol=1e-5)
        assert all(one["name"] == NAMES.get(str(one["feature"])) for one in row)
    out = run("features", PROMPT, "--dictionary", folder, "--out", tmp_path / "a.png", "--top", 64)
    odd = next(int(one) for one in found.at(2, 5)[0] if one % 2)
    assert f"{odd} (name {odd})" in out
    assert "␣king" in out
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_dashboard(folder: Path, corpus: Path, tmp_path: Path) -> None:
    told = [json.loads(line) for line in run("feature", corpus, 7, 3, "--dictionary", folder, "--json").splitlines()]
    assert [one["feature"] for one in told] == [7, 3]
    assert told[0]["histogram"]["zeros"] + sum(told[0]["histogram"]["counts"]) == told[0]["tokens"]
    out = run("feature", corpus, 7, "--dictionary", folder, "--out", tmp_path / "a.png")
    assert out.startswith("feature 7: name 7\nfires at ")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert all(place["token"] for place in told[0]["examples"])


def test_attribution_and_direct_effects(folder: Path, tmp_path: Path) -> None:
    words = ["feature-attribution", PROMPT, "--dictionary", folder, "--answer", " and", "--versus", ","]
    told = json.loads(run(*words, "--json", "--top", 4))
    assert len(told["top"]) == 4
    assert told["features"]
    assert told["error"]
    direct = json.loads(run(*words, "--direct", "--json", "--top", 64))
    assert sum(one["score"] for one in direct["top"]) + direct["rest"] == pytest.approx(direct["logit"], abs=1e-4)
    assert direct["logit"] == pytest.approx(told["value"], abs=1e-4)
    assert "value: " in run(*words, "--out", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_writing_with_features_changed(folder: Path) -> None:
    words = ["feature-steer", PROMPT, "--dictionary", folder, "--max-new-tokens", 6]
    told = json.loads(run(*words, "--set", "7=90", "--add", "3=40", "--ablate", 5, "--scale", "9=2", "--json"))
    assert told["plain"] != told["changed"]
    same = json.loads(run(*words, "--json"))
    assert same["plain"] == same["changed"]
    assert run(*words).startswith(f"--- plain\n{PROMPT}")


def test_an_evaluation_is_a_table_or_one_object(gpt2: GPT2, folder: Path, corpus: Path, tmp_path: Path) -> None:
    told = json.loads(run("evaluate-dictionary", corpus, "--dictionary", folder, "--json", "--length", 64))
    texts = internals_corpus.texts_of(gpt2, corpus, 64)
    expected = dictionaries.evaluate(gpt2, dictionaries.load(folder), texts).as_json()
    for group in ("sparsity", "model_performance_preservation"):
        assert told[group] == pytest.approx(expected[group], rel=1e-4)
    out = run("evaluate-dictionary", corpus, "--dictionary", folder, "--out", tmp_path / "a.png", "--length", 64)
    assert f"{expected['sparsity']['l0']:.2f} of 64 features" in out
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_a_dictionary_is_trained_from_a_capture(corpus: Path, tmp_path: Path) -> None:
    run("capture", corpus, tmp_path / "captured", "--names", "blocks.3.resid_pre", "--store", "float16")
    words = ["train-dictionary", tmp_path / "captured", tmp_path / "sae", "--hook-name", HOOK, "--d-sae", 40, "--k", 4]
    words += ["--batch-size", 32, "--steps", 4, "--report-steps", 2]
    told = json.loads(run(*words, "--json", "--out", tmp_path / "a.png"))
    assert told["step"] == 4
    assert told["l0"] == 4
    assert run(*words, "--resume").startswith(f"{tmp_path}/sae: step 4")
    assert dictionaries.load(tmp_path / "sae").config.metadata["model_name"] == "tales"
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert "features of blocks.3.hook_resid_pre" in run("features", PROMPT, "--dictionary", tmp_path / "sae")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "a", "--dictionary", "nowhere"], "there is no folder 'nowhere', and no release of SAELens's"),
        (["features", "a", "--dictionary", "gpt2-small-res-jb"], "is a release of 13 dictionaries: give the id of one"),
        (["features", "a", "--dictionary", "gpt2-small-res-jb", "--dictionary-id", "x"], "the nearest is 'blocks."),
        (["features", "a", "--dictionary", "gpt2-small-hook-z-kk", "--dictionary-id", "x"], "never opened"),
        (
            ["feature-steer", "a", "--dictionary", "FOLDER", "--set", "7"],
            "--set is FEATURE=NUMBER, like 12=8.5, got '7'",
        ),
        (["feature-steer", "a", "--dictionary", "FOLDER", "--ablate", "64"], "between 0 and 63, got 64"),
        (["feature-steer", "a", "--dictionary", "FOLDER", "-o", "a.png"], "feature-steer draws no picture"),
        (["evaluate-dictionary", "nowhere", "--dictionary", "FOLDER"], "nowhere: No such file or directory"),
        (["train-dictionary", "nowhere", "x", "--hook-name", "blocks.0.resid_pre"], "capture.json"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["internals", *(str(folder) if one == "FOLDER" else one for one in arguments)])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_page_shows_features_and_where_else_they_fire(
    gpt2: GPT2, folder: Path, corpus: Path, tmp_path: Path
) -> None:
    sae = dictionaries.load(folder)
    path = tmp_path / "page.html"
    assert run(PROMPT, "--dictionary", folder, "--corpus", corpus, "-o", path, group=inspect_command) == f"{path}\n"
    found = dictionaries.fires(gpt2, sae, PROMPT)
    with browser.start() as page:
        page.resize(1100, 900)
        page.open(path)
        page.click("#tokens button:nth-child(3)")
        numbers, values = found.at(2, 5)
        listed = page.run("return [...document.querySelectorAll('#features button')].map(b => b.textContent)")
        assert listed == [f"{one} name {one}" if one % 2 else str(one) for one in numbers]
        assert page.text("#features .number") == f"{values[0]:.2f}"
        page.click("#features button:nth-of-type(2)")
        second = int(numbers[1])
        assert page.text("#feature-name").startswith(f"Feature {second}")
        titles = page.run("return [...document.querySelectorAll('#fires button')].map(b => b.title)")
        assert titles == [f"position {at}: {value:.2f}" for at, value in enumerate(found.features[:, second])]
        word = dictionaries.logit_effects(gpt2, sae, [second])[0].argmax()
        assert f"Raises “{gpt2.tokenizer.decode([int(word)])}”" in page.text("#feature-about")
        example = page.run("return [...document.querySelectorAll('#examples p')].map(p => p.textContent)")
        assert len(example) == 1  # the corpus is one text
        assert "king" in example[0]
        page.resize(360, 800)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        assert page.complaints() == []
        path.write_text(inspect_page(gpt2, PROMPT), encoding="utf-8")
        page.open(path)
        assert page.run("return document.getElementById('features-section').hidden")

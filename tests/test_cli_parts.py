"""`gpt2-np internals direct`, `ablation-curve`, `keep`, `patchscope` and `function-vector` on the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.internals import patchscopes
from gpt2_np.internals.ablation import ablate
from gpt2_np.internals.variants import logit_difference

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "The king lost"
ANSWER = ["--answer", " his", "--versus", " her"]
PNG = b"\x89PNG"


def run(*arguments: str | Path) -> str:
    given = ["internals", *(str(one) for one in arguments)]
    return CliRunner().invoke(cli, given, catch_exceptions=False, standalone_mode=False).stdout


def said(*arguments: str | Path) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_direct_adds_up_in_its_table_too(gpt2: GPT2, tmp_path: Path) -> None:
    L, H = gpt2.config.n_layer, gpt2.config.n_head
    found = said("direct", PROMPT, *ANSWER, "--out", tmp_path / "direct.png")
    assert np.shape(found["values"]) == (L, H + 2)
    his, her = (gpt2.tokenizer.encode(word, add_special_tokens=False)[0] for word in (" his", " her"))
    logits = gpt2(gpt2.prompt_ids(PROMPT))[-1]
    np.testing.assert_allclose(found["logit"], logits[his] - logits[her], atol=1e-4)
    parts = np.sum(found["values"]) + found["embed"] + found["pos_embed"] + found["norm_bias"]
    np.testing.assert_allclose([found["total"], parts], found["logit"], atol=1e-3)
    assert (tmp_path / "direct.png").read_bytes().startswith(PNG)
    table = run("direct", PROMPT, "--answer", " his", "--position", "1")
    assert "scale: " in table
    assert "mlp" in table.splitlines()[-L - 1]


def test_a_curve_falls_by_rank_and_a_circuit_is_kept(gpt2: GPT2, tmp_path: Path) -> None:
    curve = said("ablation-curve", PROMPT, *ANSWER, "--count", "3", "--out", tmp_path / "curve.png")
    metric = logit_difference(" his", " her").with_tokens(lambda text: gpt2.tokenizer.encode(text))
    alone = ablate(gpt2, gpt2.prompt_ids(PROMPT), metric)
    order = [np.unravel_index(number, alone.shape) for number in alone.argsort(axis=None)[:3]]
    assert curve["heads"] == [f"{layer}.{head}" for layer, head in order]
    np.testing.assert_allclose(curve["values"][1], alone.min(), atol=1e-5)
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    (tmp_path / "texts.txt").write_text("The queen went home. The miller had a daughter and a son. " * 3)
    means = ["--how", "position mean", "--reference", tmp_path / "texts.txt"]
    given = said("ablation-curve", PROMPT, *ANSWER, "--head", "1.2", *means)
    assert given["heads"] == ["1.2"]
    assert "1.2" in run("ablation-curve", PROMPT, *ANSWER, "--head", "1.2").splitlines()[-1]

    kept = said("keep", PROMPT, *ANSWER, "--head", "1.2", "--head", "6.0", *means, "--out", tmp_path / "keep.png")
    np.testing.assert_allclose(kept["whole"], curve["values"][0], atol=1e-5)
    assert len({kept[name] for name in ("whole", "circuit", "rest", "nothing")}) == 4
    assert (tmp_path / "keep.png").read_bytes().startswith(PNG)
    assert run("keep", PROMPT, *ANSWER, "--head", "1.2", "--mlp", "0").split()[::2] == [
        "whole",
        "circuit",
        "rest",
        "nothing",
    ]


def test_states_and_directions_are_carried(gpt2: GPT2, tmp_path: Path) -> None:
    source, target, picture = "One day the fox", "One day the king saw", tmp_path / "sweep.png"
    options = ["--position", "3", "--target-position", "3", "--max-new-tokens", "4"]
    found = said("patchscope", source, target, *options, "--answer", " him", "--out", picture)
    assert list(found) == ["plain", *map(str, range(gpt2.config.n_layer))]
    assert found["0"] == gpt2.generate("One day the fox saw", max_new_tokens=4).text
    assert picture.read_bytes().startswith(PNG)
    here, there = (gpt2.prompt_ids(text) for text in (source, target))
    moved = patchscopes.patchscope(gpt2, here, there, layer=5, position=3, target_layer=2, target_position=3)
    text = moved.generate(target, max_new_tokens=4).text
    assert f"5 {text!r}" in run("patchscope", source, target, *options, "--layer", "5", "--target-layer", "2")

    (tmp_path / "pairs.tsv").write_text("king\tqueen\nprince\tprincess\nboy\tgirl\nson\tdaughter\n")
    small = ["--shots", "2", "--count", "1", "--heads", "3", "--max-new-tokens", "2"]
    out = tmp_path / "effects.png"
    vector = said("function-vector", tmp_path / "pairs.tsv", "Q: man\nA:", *small, "--out", out)
    assert np.shape(vector["effects"]) == (gpt2.config.n_layer, gpt2.config.n_head)
    assert len(vector["heads"]) == 3
    assert vector["layer"] == gpt2.config.n_layer // 3
    assert len(vector["written"]["Q: man\nA:"]) == 2
    assert out.read_bytes().startswith(PNG)
    table = run("function-vector", tmp_path / "pairs.tsv", "Q: man", *small)
    assert "heads: " + " ".join(vector["heads"]) in table
    assert "'Q: man': plain " in table


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("king\tqueen\nprince\n")
    for arguments, why in [
        (["keep", PROMPT, *ANSWER, "--head", "1"], "a head is LAYER.HEAD, two numbers like 7.0, got '1'"),
        (["keep", PROMPT, *ANSWER, "--head", "8.0"], "a layer below 8 and a number below 10, got 8.0"),
        (["ablation-curve", PROMPT, *ANSWER, "--head", "1.0", "--how", "mean"], "needs reference texts"),
        (["direct", PROMPT, "--answer", " his her"], "an answer must be one token"),
        (["patchscope", "a", "b", "--out", tmp_path / "a.png"], "a picture needs --answer"),
        (["patchscope", "a", "b", "--layer", "8"], "layer must be between 0 and 7, got 8"),
        (["function-vector", tmp_path / "pairs.tsv"], "line 2 must be an input and an output with a tab between"),
    ]:
        with pytest.raises(ValueError, match=why):
            run(*arguments)

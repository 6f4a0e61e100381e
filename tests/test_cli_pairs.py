"""Files of pairs on the command line: what `internals task` prints is what `attribute` and `edges` read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.gradients import log_probability, logit_difference
from gpt2_np.internals import attribution

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN, CORRUPTED = "The boy was sad because", "The girl was sad because"


def run(*arguments: str | Path, stdin: str | None = None) -> str:
    result = CliRunner().invoke(
        cli, ["internals", *map(str, arguments)], input=stdin, catch_exceptions=False, standalone_mode=False
    )
    return result.stdout


@pytest.fixture(scope="module")
def generated() -> str:
    """Pairs of three lengths."""
    return run("task", "possessives", "--count", "6", "--seed", "2", "--pairs")


def test_the_pairs_of_a_task_feed_attribution_by_node(gpt2: GPT2, generated: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(generated)
    lines = [json.loads(line) for line in generated.splitlines()]
    assert len({len(gpt2.tokenizer.encode(one["clean"])) for one in lines}) > 1
    asked = ["attribute", "--pairs", path, "--point", "attn.z", "--over", "head", "--bos"]
    printed = json.loads(run(*asked, "--json", "--out", tmp_path / "a.png"))
    each = []
    for one in lines:
        metric = logit_difference(one["answer"], one["wrong"])
        alone = attribution.nodes(
            gpt2, one["clean"], one["corrupted"], metric, names="blocks.*.attn.z", prepend_bos=True
        )
        each.append(alone.stack("attn.z").sum(axis=1))
    np.testing.assert_allclose(printed["values"], np.mean(each, axis=0), atol=2e-4)
    np.testing.assert_allclose(printed["spread"], np.std(each, axis=0), atol=2e-4)
    assert printed["pairs"] == 6
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    text = run(*asked)
    assert "pairs: 6" in text
    assert "standard deviation over: 6 pairs" in text
    assert text.count("layer / head") == 2


def test_the_pairs_of_a_task_feed_attribution_by_edge(gpt2: GPT2, generated: str) -> None:
    printed = json.loads(run("edges", "--pairs", "-", "--circuit", "200", "--top", "4", "--json", stdin=generated))
    lines = [json.loads(line) for line in generated.splitlines()]
    right, wrong = ([gpt2.to_single_token(one[side]) for one in lines] for side in ("answer", "wrong"))
    sides = ([one[side] for one in lines] for side in ("clean", "corrupted"))
    found = attribution.edges(gpt2, *sides, logit_difference(right, wrong))
    for one, (sender, receiver, score) in zip(printed["top"], found.top(4), strict=True):
        assert (one["from"], one["to"]) == (sender, receiver)
        assert one["score"] == pytest.approx(score, rel=1e-5)
        place = found.senders.index(sender), found.receivers.index(receiver)
        assert one["spread"] == pytest.approx(found.spread[place], rel=1e-4)
    assert printed["pairs"] == 6
    assert printed["clean"] == pytest.approx(found.clean.mean(), rel=1e-5)
    assert printed["faithfulness"] == pytest.approx(found.circuit(200).faithfulness(), rel=1e-4)
    assert " ± " in run("edges", "--pairs", "-", "--top", "2", stdin=generated)


def test_one_answer_for_all_pairs_ids_for_texts_and_positions_by_token(gpt2: GPT2, tmp_path: Path) -> None:
    path = tmp_path / "pairs"  # JSONL whatever its name is
    ids = [gpt2.tokenizer.encode(text) for text in ("The king was sad because", "The queen was sad because")]
    rows = [{"clean": CLEAN, "corrupted": CORRUPTED, "answer": " he"}, {"clean": ids[0], "corrupted": ids[1]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    printed = json.loads(run("attribute", "--pairs", path, "--answer", " he", "--json"))
    metric = log_probability(gpt2.to_single_token(" he"))
    found = attribution.nodes(gpt2, [CLEAN, ids[0]], [CORRUPTED, ids[1]], metric, names="*.resid_pre")
    np.testing.assert_allclose(printed["values"], found.stack("resid_pre"), atol=1e-5)
    heading = run("attribute", "--pairs", path, "--answer", " he").splitlines()[5]
    assert heading.split()[3:] == ["The", "1", "␣was", "␣sad", "␣because"]


PAIR = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": " he", "wrong": " she"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "pairs.jsonl must hold at least one pair, got none"),
        ([PAIR, "no object"], "pairs.jsonl, pair 2: a line must be a JSON object"),
        ([PAIR | {"clean": 3}], 'pair 1: a pair must have a "clean", which is a text or ids, got 3'),
        ([PAIR | {"corrupted": []}], r'pair 1: a pair must have a "corrupted", which is a text or ids, got \[\]'),
        ([PAIR, PAIR | {"answer": " in the house"}], "pair 2: an answer must be one token"),
        ([PAIR | {"answer": 10**6}], '"answer" must be between 0 and 4095, got 1000000'),
        ([PAIR | {"answer": None}], 'a pair must have a "answer", which is one token or an id, got None'),
        ([PAIR, {**PAIR, "wrong": True}], 'a pair must have a "wrong", which is one token or an id, got True'),
        (
            [PAIR, {name: one for name, one in PAIR.items() if name != "wrong"}],
            'pair 2: either every pair has a "wrong" token or none',
        ),
        ([PAIR, PAIR | {"corrupted": "The girl"}], "equally many tokens, got 5 in .* and 2 in 'The girl'"),
        (
            [PAIR, PAIR | {"clean": "The boy", "corrupted": "The girl"}],
            r"all pairs must have equally many tokens, got \[2, 5\]; over 'layer' or 'head' sums over positions",
        ),
    ],
)
def test_a_broken_file_is_one_line(lines: list[object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines))
    with pytest.raises(ValueError, match=message):
        run("attribute", "--pairs", path)


def test_standard_input_is_jsonl_as_well() -> None:
    with pytest.raises(ValueError, match="standard input, pair 1: a line must be a JSON object"):
        run("edges", "--pairs", "-", stdin='{"clean": "a"')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attribute"], "give the prompts, or --pairs with a file of them"),
        (["edges", "--answer", " he"], "give the prompts, or --pairs with a file of them"),
        (["attribute", CLEAN, "--pairs", "p.jsonl"], "--pairs has the prompts: give a file or prompts, not both"),
        (["edges", CLEAN, "--answer", " he"], "a pair needs a clean and a corrupted prompt"),
        (["attribute", CLEAN], "--answer is missing"),
        (["edges", CLEAN, CORRUPTED], "--answer is missing"),
        (["attribute", "--pairs", "p.jsonl", "--method", "saliency"], "saliency needs one prompt, not a corrupted one"),
    ],
)
def test_prompts_or_a_file(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*arguments)

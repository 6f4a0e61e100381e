"""`gpt2-np internals attribute` and `… edges` on the bundled model, their pictures, and one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import internals_attribution
from gpt2_np.cli.internals import internals_group
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution, plots_attribution

pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN, CORRUPTED = "The boy was sad because", "The girl was sad because"
ASK = ["--answer", " he", "--versus", " she"]
METRIC = logit_difference(" he", " she")


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(
        internals_group, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False
    )
    return result.stdout


@pytest.mark.parametrize("method", internals_attribution.OF_INPUTS)
def test_tokens_are_what_the_function_says(method: str, gpt2: GPT2, tmp_path: Path) -> None:
    arguments = ["attribute", CLEAN, *ASK, "--bos", "--method", method, "--steps", "6"]
    printed = json.loads(run(*arguments, "--json", "--out", tmp_path / "a.png"))
    found = attribution.inputs(gpt2, CLEAN, METRIC, method, 6, prepend_bos=True)
    np.testing.assert_allclose(printed["scores"], found.scores, rtol=1e-6)
    assert printed["tokens"][0] == "<|endoftext|>"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    lines = run(*arguments).splitlines()[-6:]
    for line, token, score in zip(lines, ["<|endoftext|>", "The", "␣boy"], found.scores, strict=False):
        assert line.split()[0] == token
        assert float(line.split()[1].rstrip("│")) == pytest.approx(score, abs=6e-5)
        assert ("▒" in line) <= (score < 0)


def test_bars_go_to_both_sides_and_the_longest_is_the_largest() -> None:
    lines = internals_attribution.bars([" a", "bb", "c"], np.array([-2.0, 1.0, 0.0]))
    assert lines == [
        "␣a   -2.0000 " + "▒" * 40 + "│",
        "bb    1.0000 " + " " * 40 + "│" + "█" * 20,
        " c    0.0000" + " " * 41 + "│",
    ]
    assert internals_attribution.bars(["a"], np.zeros(1)) == ["a    0.0000 │"]


@pytest.mark.parametrize(
    ("more", "shape"),
    [
        (["--method", "relp"], (8, 5)),
        (["--method", "atp*", "--point", "attn.q", "--over", "head"], (8, 10)),
        (["--point", "mlp.post", "--bos"], (8, 6)),
        (["--point", "attn.pattern", "--over", "head"], (8, 10)),
        (["--point", "attn.pattern"], (8, 5)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_activations_are_what_the_function_says(
    more: list[str], shape: tuple[int, int], tmp_path: Path, gpt2: GPT2
) -> None:
    printed = json.loads(run("attribute", CLEAN, CORRUPTED, *ASK, *more, "--json", "--out", tmp_path / "a.png"))
    assert np.shape(printed["values"]) == shape
    method = printed["method"]
    names = f"blocks.*.{printed['point']}"
    found = attribution.nodes(gpt2, CLEAN, CORRUPTED, METRIC, method, names=names, prepend_bos="--bos" in more)
    for layer in range(8):
        total = found.scores[names.replace("*", str(layer))].sum()
        assert np.sum(printed["values"][layer]) == pytest.approx(total, abs=1e-4)
    assert printed["clean"] > printed["corrupted"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert f"method: {method}" in run("attribute", CLEAN, CORRUPTED, *ASK, *more)


def test_edges_a_circuit_its_curve_and_its_file(gpt2: GPT2, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["edges", CLEAN, CORRUPTED, *ASK, "--method", "eap-ig", "--circuit", "100", "--top", "3"]
    printed = json.loads(run(*arguments, "--json", "--save", tmp_path / "c.json", "--out", tmp_path / "c.png"))
    found = attribution.edges(gpt2, CLEAN, CORRUPTED, METRIC, "eap-ig")
    circuit = found.circuit(100)
    assert [(one["from"], one["to"]) for one in printed["top"]] == [one[:2] for one in found.top(3)]
    assert printed["edges"] == len(circuit)
    assert printed["faithfulness"] == pytest.approx(circuit.faithfulness(), rel=1e-5)
    again = circuit.from_json((tmp_path / "c.json").read_text())
    np.testing.assert_array_equal(again.edges, circuit.edges)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    curve = json.loads(run(*arguments[:-4], "--curve", "--json", "--out", tmp_path / "curve.svg"))["curve"]
    assert curve["faithfulness"][-1] == 1.0
    assert curve["edges"][-1] == 9965
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    known = attribution.Curve(*(np.array(curve[name]) for name in ("shares", "edges", "faithfulness")))
    assert (curve["cpr"], curve["cmd"]) == pytest.approx((known.cpr, known.cmd))
    internals_attribution.report(found, {"method": "eap-ig"}, known, 2, False)
    text = capsys.readouterr().out
    assert "input → m0" in text
    assert f"CPR {known.cpr:.4f}" in text
    assert text.splitlines()[-2] == "  100.0% of the edges,   9965 left: faithfulness 1.000"
    strong = json.loads(run("edges", CLEAN, CORRUPTED, *ASK, "--threshold", "0.3", "--json"))
    assert 0 < strong["edges"] < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attribute", CLEAN, *ASK, "--method", "atp"], "--method atp needs a corrupted prompt as well"),
        (["attribute", CLEAN, CORRUPTED, *ASK, "--method", "saliency"], "saliency needs one prompt, not a corrupted"),
        (["attribute", CLEAN, "The girl", *ASK], "got 5 in 'The boy was sad because' and 2 in 'The girl'"),
        (
            ["attribute", CLEAN, CORRUPTED, *ASK, "--over", "head"],
            "needs activations that have heads, such as attn.z, got",
        ),
        (["attribute", CLEAN, CORRUPTED, *ASK, "--point", "resid"], "the nearest is"),
        (["edges", CLEAN, "The girl", *ASK], "got 5 in 'The boy was sad because' and 2 in 'The girl'"),
        (["edges", CLEAN, CORRUPTED, *ASK, "--circuit", "3", "--threshold", "1"], "not both"),
        (["edges", CLEAN, CORRUPTED, *ASK, "--save", "a.json"], "ask for one with --circuit or --threshold"),
        (["edges", CLEAN, CORRUPTED, "--answer", " in the house"], "an answer must be one token"),
    ],
)
def test_what_can_t_be_is_said_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*arguments)


def test_a_picture_of_a_circuit_shows_its_nodes_and_says_how_much_it_shows(gpt2: GPT2) -> None:
    found = attribution.edges(gpt2, CLEAN, CORRUPTED, METRIC, "relp")
    figure = plots_attribution.circuit(found.circuit(300), title="$he$")
    (axes,) = figure.axes
    texts = {text.get_text() for text in axes.texts}
    assert {"input", "logits", "MLP 0"} <= texts
    assert "60 of" in axes.get_title()
    few = found.circuit(12)
    figure = plots_attribution.circuit(few, title="few")
    shown = {text.get_text() for text in figure.axes[0].texts} - {"q", "k", "v"}
    names = {f"MLP {name[1:]}" if name[0] == "m" else name.removeprefix("a").replace(".h", ".") for name in few.nodes}
    assert shown == names | {"input", "logits"}
    assert len(figure.axes[0].patches) == len(few)
    nothing = plots_attribution.circuit(few.with_edges(np.zeros_like(few.edges)), title="nothing")
    assert {text.get_text() for text in nothing.axes[0].texts} == {"input", "logits"}

"""Is an attribution graph true? Its effects beside the model with everything held, and beside the model itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import browser
import numpy as np
import pytest
from click.testing import CliRunner
from dictionary_folders import random_dictionary
from golden_transformer_lens import as_loaded

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries import Dictionary
from gpt2_np.internals.dictionaries import graph as graphs
from gpt2_np.internals.dictionaries.graph import graph
from gpt2_np.internals.dictionaries.graph_effects import Silenced, silence
from gpt2_np.internals.page import inspect_page

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = np.random.default_rng(5).integers(1, 31, 9)
PROMPT = "Once the king lost"
ASK = ["--answer", " his", "--versus", " her"]


def made(architecture: str, width: int, layers: int, features: int = 24, scale: float = 0.3) -> list[Dictionary]:
    shape = {"architecture": architecture, "d_in": width, "d_sae": features, "d_out": width}
    return [
        random_dictionary(
            shape
            | {"apply_b_dec_to_input": False}
            | {"hook_name": f"blocks.{layer}.ln2.hook_normalized", "hook_name_out": f"blocks.{layer}.hook_mlp_out"},
            layer,
            scale=scale,
        )
        for layer in range(layers)
    ]


class Held:
    """The model as a graph sees it: patterns, scales and which features fire as in `plain`, one feature silenced."""

    def __init__(self, transcoders: Sequence[Dictionary], plain: Mapping[str, np.ndarray], node: tuple) -> None:
        self.transcoders, self.plain, self.node = transcoders, plain, node
        self.read = np.zeros(0)

    def wants(self, name: str) -> bool:
        return name.endswith((".pattern", ".scale", "ln2.normalized", "mlp_out"))

    def __call__(self, name: str, x: np.ndarray) -> np.ndarray:
        if name.endswith((".pattern", ".scale")):
            return self.plain[name]
        if name.endswith("ln2.normalized"):
            self.read = x
        if not name.endswith("mlp_out"):
            return x
        layer = int(name.split(".")[1])
        one, before = self.transcoders[layer], self.plain[f"blocks.{layer}.ln2.normalized"]
        on = one.encode(before)
        now = np.where(on != 0, self.read @ one.tensors["W_enc"] + one.tensors["b_enc"], 0)
        if self.node[1] == layer:
            now[0, self.node[2], self.node[3]] = 0
        out = self.plain[name] + (now - on) @ one.tensors["W_dec"]
        return out + (self.read - before) @ one.tensors["W_skip"].T if one.config.has_skip else out


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder"])
def test_effects_are_those_of_the_model_with_everything_held(architecture: str) -> None:
    model = as_loaded()
    transcoders = made(architecture, 16, 2)
    found = graph(model, transcoders, IDS, 4, 9)
    logits, plain = model.run_with_cache(IDS[None])
    before = float(logits[0, -1, 4] - logits[0, -1, 9])
    effects = found.effects()
    assert np.abs(effects).max() > 0.1
    for one in np.argsort(-np.abs(effects))[:12]:
        held = model.forward(IDS[None], tap=Held(transcoders, plain, found.targets[one]))
        assert float(held[0, -1, 4] - held[0, -1, 9]) - before == pytest.approx(effects[one], abs=2e-4)


def test_silence_is_an_edited_run() -> None:
    model, transcoders = as_loaded(), made("transcoder", 16, 2)
    for versus in (None, 9):
        found = graph(model, transcoders, IDS, 4, versus, position=6)
        done = silence(model, transcoders, found, 5, batch=2)
        np.testing.assert_array_equal(done.which, np.argsort(-np.abs(found.effects()), kind="stable")[:5])
        np.testing.assert_array_equal(done.predicted, found.effects()[done.which])

        def value(logits: np.ndarray, versus: int | None = versus) -> float:
            return float(logits[0, 6, 4] - (0 if versus is None else logits[0, 6, versus]))

        plain, cache = model.run_with_cache(IDS[None], "*.mlp_out")
        for number, one in enumerate(done.which):
            _, layer, at, feature = found.targets[one]
            x = cache["mlp_out", layer].copy()
            x[0, at] -= found.activations[one] * transcoders[layer].tensors["W_dec"][feature]
            logits, _ = model.run_with_edits(IDS[None], {f"blocks.{layer}.mlp_out": x})
            assert done.measured[number] == pytest.approx(value(logits) - value(plain), abs=1e-5)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        silence(model, transcoders, found, 0)


def test_a_correlation_needs_two_different_numbers() -> None:
    one = np.array([1.0, 2.0, 4.0])
    assert Silenced(np.arange(3), one, 2 * one).correlation == pytest.approx(1)
    assert np.isnan(Silenced(np.arange(3), np.ones(3), one).correlation)
    assert np.isnan(Silenced(np.arange(1), np.ones(1), np.ones(1)).correlation)


def test_what_leads_back_adds_up() -> None:
    found = graph(as_loaded(), made("transcoder", 16, 2), IDS, 4, 9)
    flows = found.flows()
    np.testing.assert_allclose(found.influence(), flows.sum(axis=0))
    assert flows[-1].sum() == pytest.approx(1)
    ends = [number for number, one in enumerate(found.sources) if one[0] != "feature"]
    assert flows[:, ends].sum() == pytest.approx(1)  # all of it ends at tokens and errors
    strongest = found.strongest(7)
    assert [flow for *_, flow in strongest] == sorted(flows.ravel(), reverse=True)[:7]
    for target, source, weight, _ in strongest:
        assert weight == found.edges[target, source]


def test_a_graph_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 10)
    with pytest.raises(ValueError, match=r"at most 10 features may fire in a graph, got \d+: give a shorter prompt"):
        graph(as_loaded(), made("transcoder", 16, 2), IDS, 4)


def test_layers_come_from_a_folder_in_their_order(tmp_path: Path) -> None:
    transcoders = made("transcoder", 16, 2)
    for name, one in zip(("b", "a"), transcoders, strict=True):
        dictionaries.save(one, tmp_path / name)
    loaded = dictionaries.load_layers(tmp_path)
    assert [one.hook_name_out for one in loaded] == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    dictionaries.save(transcoders[0], tmp_path / "c")
    with pytest.raises(ValueError, match="a layer has one dictionary, and layer 0 has b and c"):
        dictionaries.load_layers(tmp_path)
    with pytest.raises(FileNotFoundError, match="must hold a folder for each layer"):
        dictionaries.load_layers(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        dictionaries.load_layers(tmp_path / "d")


# ---- for the bundled model, on the command line and on the page -----------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, gpt2: GPT2) -> Path:
    out = tmp_path_factory.mktemp("transcoders")
    for layer, one in enumerate(made("transcoder", 320, gpt2.config.n_layer, 16, 0.05)):
        dictionaries.save(one, out / f"layer-{layer}")
    return out


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(cli, ["internals", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)
    return result.stdout


def test_edges_add_up_within_1e_5_in_the_bundled_model(gpt2: GPT2, folder: Path) -> None:
    found = graph(gpt2, dictionaries.load_layers(folder), PROMPT, 5, 6, prepend_bos=True)
    assert found.ids[0] == 0
    assert found.gap() < 1e-5


def test_a_graph_on_the_command_line(gpt2: GPT2, folder: Path, tmp_path: Path) -> None:
    asked = ["graph", PROMPT, *ASK, "--transcoders", folder, "--features", "12", "--silence", "20"]
    out, scatter = tmp_path / "graph.png", tmp_path / "scatter.svg"
    printed = json.loads(run(*asked, "--json", "--out", out, "--scatter", scatter))
    layers = dictionaries.load_layers(folder)
    right, wrong = (gpt2.to_single_token(word) for word in (" his", " her"))
    whole = graph(gpt2, layers, PROMPT, right, wrong)
    assert printed["value"] == pytest.approx(whole.values[-1])
    assert printed["features"] == len(whole.activations) == len(printed["features_by_influence"])
    assert printed["kept"] == 12
    assert printed["correlation"] == pytest.approx(silence(gpt2, layers, whole, 20).correlation, abs=1e-6)
    assert sum(row["measured"] is not None for row in printed["features_by_influence"]) == 20
    some = whole.pruned(12)
    for edge in printed["edges"][:5]:
        ends = []
        for side, nodes in (("from", some.sources), ("to", some.targets)):
            one = edge[side]
            ends.append(nodes.index((one["kind"], *(one.get(part, -1) for part in ("layer", "position", "number")))))
        assert edge["adds"] == pytest.approx(some.edges[ends[1], ends[0]])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert scatter.read_text().startswith("<?xml")
    text = run(*asked, "--top", "3").splitlines()
    assert "edges and biases add up within" in text[0]
    assert text[3].startswith("20 silenced one by one: correlation of predicted and measured")
    assert len(text) == 8
    assert "silenced" not in run(*asked[:-1], "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--silence", "0", "--scatter", "a.png"], "--scatter shows features that were silenced"),
        (["--position", "9"], "position must be between -4 and 3 of one prompt, got 9"),
        (["--answer", " in the house"], "an answer must be one token"),
    ],
)
def test_what_can_t_be_is_one_line(arguments: list[str], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run("graph", PROMPT, *ASK, "--transcoders", folder, *arguments)


def test_the_page_shows_the_graph(gpt2: GPT2, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    arguments = ["inspect", PROMPT, "--out", str(path), "--transcoders", str(folder), *ASK]
    CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    layers = dictionaries.load_layers(folder)
    right, wrong = (gpt2.to_single_token(word) for word in (" his", " her"))
    whole = graph(gpt2, layers, PROMPT, right, wrong)
    some = whole.pruned(40)
    with browser.start() as page:
        page.resize(1100, 900)
        page.open(path)
        assert "Why “ his” and not “ her”" in page.text("#graph-about")
        assert page.text("#graph-name") == "“ his” over “ her”"
        (target, source, weight, _), *_ = sorted(
            (one for one in some.strongest(300) if some.targets[one[0]][0] == "logit"), key=lambda one: -abs(one[2])
        )
        assert some.targets[target][0] == "logit"
        assert page.text("#graph-in .number") == f"{weight:.2f}"
        kind, layer, _, number = some.sources[source]
        page.click("#graph-in button")
        if kind == "feature":
            assert page.text("#graph-name").endswith(f"feature {number}")
            feature = whole.targets.index(some.sources[source])
            assert f"changes by {whole.effects()[feature]:+.2f} as the graph has it" in page.text("#graph-what")
        assert str(layer) in page.text("#graph-name") or kind == "token"
        page.run("document.querySelector('#graph [tabindex=\"0\"]').focus()")
        before = page.text("#graph-name")
        page.press("ArrowRight")
        page.press("ArrowLeft")
        assert page.text("#graph-name") == before
        page.resize(360, 800)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        assert page.complaints() == []


def test_a_page_without_transcoders_has_no_graph(gpt2: GPT2, tmp_path: Path) -> None:
    assert "graph" not in inspect_page(gpt2, PROMPT).split('id="data"')[0]
    arguments = ["inspect", PROMPT, "--out", str(tmp_path / "p.html"), *ASK]
    with pytest.raises(ValueError, match="--answer and --versus belong together, and need --transcoders"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)

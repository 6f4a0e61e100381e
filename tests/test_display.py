"""What results show of themselves: right numbers, no foreign HTML, readable on light and dark, small; a line each."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from dictionary_folders import random_dictionary
from golden_transformer_lens import as_loaded, golden
from hypothesis import given
from hypothesis import strategies as st
from test_attribution_graph import transcoders

from gpt2_np import GPT2, Generation, Score, display
from gpt2_np.display import Texts, brief, heat, tint, words
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution, dictionaries, lens, neurons, patching, plots
from gpt2_np.internals.backward_lens import backward_lens
from gpt2_np.internals.dictionaries.graph import graph
from gpt2_np.internals.direct import direct
from gpt2_np.internals.page import Page
from gpt2_np.model.cache import KVCache
from gpt2_np.session.model import Model

HOSTILE = [
    '<script>alert("x")</script>',
    "\" onmouseover='alert(1)",
    "</td></table>&amp;",
    "\x1b[31m\u202e\ud800",
    "\n",
]
TAGS = {"div", "table", "tr", "th", "td", "span", "svg", "g", "path", "polygon", "rect", "text", "title"}
ATTRIBUTES = {
    *("style", "title", "scope", "role", "aria-label", "width", "height", "viewbox", "stroke", "fill", "opacity", "d"),
    *("stroke-width", "points", "x", "y", "rx", "stroke-opacity", "text-anchor", "font-size"),
}


class HostileModel(Model):
    """A model whose tokens are what an attacker would call them."""

    @property
    def texts(self) -> Texts:
        return Texts(lambda ids: [HOSTILE[one % len(HOSTILE)] for one in ids])


class Read(HTMLParser):
    """What a browser would find: tags, attributes, and the text of every cell and every token."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements must be closed in their order"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1:] == ["td"]:
            self.cells[-1] += data

    def all(self, name: str) -> list[str]:
        return [value for one, value in self.attributes if one == name]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """One of everything that a notebook may show, of a model whose tokens are hostile."""
    plain = as_loaded()
    model = HostileModel(plain.params, plain.config, backend="numpy")
    clean, corrupted = golden()["clean"][0], golden()["corrupted"][0]
    metric = logit_difference(5, 9)
    edges = attribution.edges(model, clean, corrupted, metric)
    place = "blocks.1.hook_resid_pre"
    sae = random_dictionary(
        {
            "architecture": "topk",
            "k": 3,
            "d_in": 16,
            "d_sae": 40,
            "d_out": 16,
            "hook_name": place,
            "hook_name_out": place,
        }
    )
    texts = [clean.tolist(), corrupted.tolist()]
    patch = {
        over: patching.activation_patch(model, clean, corrupted, metric, point=point, over=over)
        for over, point in (
            ("layer", "mlp_out"),
            ("position", "resid_pre"),
            ("head", "attn.z"),
            ("head position", "attn.z"),
        )
    }
    nodes = {method: attribution.nodes(model, clean, corrupted, metric, method) for method in ("atp", "relp")}
    inputs = {method: attribution.inputs(model, clean, metric, method) for method in ("saliency", "occlusion")}
    found: dict[str, Any] = {
        "model": model,
        "edited": model.with_edits({"blocks.0.attn.z": np.zeros_like}),
        "cache": model.run_with_cache(clean)[1],
        "gradients": model.run_with_gradients(clean, metric, parameters=True),
        "generation": Generation(
            HOSTILE[0], "x", [1, 2, 3, 4, 5], [-0.1, -2.0, 0.0, -np.inf, -9.0], "length", tokens=(*HOSTILE,)
        ),
        "without tokens": Generation("", "", [1], [-0.5], "stop", 1.25),
        "score": Score(12.0, 4, 16),
        "some nodes": attribution.nodes(model, clean, corrupted, metric, names=["embed"]),
        "edges": edges,
        "circuit": edges.circuit(20),
        "empty circuit": edges.circuit(0),
        "curve": attribution.curve(edges, (0.1, 1.0)),
        "lens": lens.logit_lens(model, clean),
        "backward lens": backward_lens(model, clean, metric),
        "direct": direct(model, clean, 5, 9),
        "dictionary": sae,
        "firing": dictionaries.fires(model, sae, clean),
        "features": dictionaries.attribute(model, sae, clean, metric),
        "direct features": dictionaries.direct(model, sae, clean, 5),
        "evaluation": dictionaries.evaluate(model, sae, texts),
        "dashboard": dictionaries.dashboards(model, sae, texts, [1])[0],
        "neuron": neurons.dashboards(model, texts, [(1, 3)])[0],
    }
    found |= {f"patching by {over}": one for over, one in patch.items()}
    found |= {f"nodes by {method}": one for method, one in nodes.items()}
    found |= {f"inputs by {method}": one for method, one in inputs.items()}
    return found


def test_no_text_becomes_markup(results: dict[str, Any]) -> None:
    for name, result in results.items():
        html = result._repr_html_()
        html.encode()  # no lone surrogate, which no notebook could keep
        read = Read(html)
        assert read.tags <= TAGS, (name, read.tags - TAGS)
        assert {attribute for attribute, _ in read.attributes} <= ATTRIBUTES, name
        assert not any(re.search(r"url|expression|@import|[<>]", style) for style in read.all("style")), name
    assert "<script>alert" in Read(results["generation"]._repr_html_()).text
    assert "<script>alert" in Read(results["lens"]._repr_html_()).text


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.text(max_size=8))
def test_a_text_comes_back_as_it_was_but_for_what_cannot_be_seen(pieces: list[str], before: str) -> None:
    html = words(pieces, [0.5] * len(pieces), pieces, before=before)
    read = Read(html)
    shown = display.printable(before) + "".join(display.printable(one).replace("\n", "↵\n") or "·" for one in pieces)
    assert read.text == shown
    assert read.all("title") == [display.printable(one) for one in pieces]
    assert read.tags == {"div", "span"}


def test_every_result_is_a_line_in_a_terminal(results: dict[str, Any]) -> None:
    others = [
        results["model"].params,
        KVCache(as_loaded().config, 2, 8),
        results["cache"],
        Page("<html>" * 9999),
        Texts(),
    ]
    for result in [*results.values(), *others]:
        line = repr(result)
        assert "\n" not in line, line
        assert " at 0x" not in line, line
        assert type(result).__name__ in line
        assert len(line) < 700, line


def test_a_heat_map_has_the_numbers_and_tints_them_by_size() -> None:
    values = np.array([[1.0, -2.0, 0.0], [np.nan, 0.5, -0.001]])
    read = Read(heat(values, rows=["a", "b"], columns=[" x", "y", "z"], title="<b>", legend="nats"))
    assert read.cells == ["1.00", "-2.00", "0.00", "–", "0.50", "0.00"]
    assert read.text.startswith("<b>")
    assert "␣x" in read.text
    assert "nats" in read.text
    found = [
        re.search(r"rgba\((.*?), ([\d.]+)\)", style)
        for style in read.all("style")
        if style.startswith("text-align:right;padding:.1em .4em;")
    ]
    tints = [None if one is None else (one.group(1), float(one.group(2))) for one in found[-6:]]
    full = display.STRONGEST
    assert tints == [(display.WARM, full / 2), (display.COOL, full), None, None, (display.WARM, full / 4), None]
    assert [hint for hint in read.all("title") if hint.endswith("-0.001")] == ["b, z: -0.001"]


def test_patching_shows_what_is_restored(results: dict[str, Any]) -> None:
    found = results["patching by position"]
    shown = np.array([float(cell) for cell in Read(found._repr_html_()).cells]).reshape(found.scores.shape)
    np.testing.assert_allclose(shown, found.restored, atol=0.0051)
    each = results["patching by head position"].restored
    first = Read(results["patching by head position"]._repr_html_()).cells[:2]
    assert tuple(map(int, first)) == np.unravel_index(np.abs(each).argmax(), each.shape)[1:]


def test_a_generation_s_tints_are_the_model_s_probabilities(results: dict[str, Any]) -> None:
    out = results["generation"]
    read = Read(out._repr_html_())
    hints = [hint for hint in read.all("title") if hint.startswith("id ")]
    assert hints[1] == "id 2: probability 13.5%, log-probability -2.000"
    tints = [
        re.search(r"rgba\(215, 62, 66, ([\d.]+)\)", style)
        for style in read.all("style")
        if style.startswith("border-left")
    ]
    opacities = [0.0 if one is None else float(one.group(1)) for one in tints]
    np.testing.assert_allclose(opacities, np.exp(out.logprobs) * display.STRONGEST, atol=0.0051)
    assert "before any option changed it" in read.text


def test_a_lens_shows_the_likeliest_tokens() -> None:
    model, ids = as_loaded(), golden()["ids"][0]
    looked = lens.logit_lens(model, ids)
    shown = np.array(Read(looked._repr_html_()).cells).reshape(looked.logits.shape[:2])
    np.testing.assert_array_equal(shown[::-1].astype(int), looked.logits.argmax(-1))


def test_an_edge_s_arrow_says_its_score(results: dict[str, Any]) -> None:
    circuit = results["circuit"]
    html = circuit._repr_html_()
    shown = sorted(float(score) for score in re.findall(r"<title>[^<]*: ([+-][\d.e-]+)</title>", html))
    np.testing.assert_allclose(shown, np.sort(circuit.scores[circuit.edges]), rtol=0.006)


def test_what_is_large_is_shown_in_part_and_says_so() -> None:
    big = heat(np.ones((500, 3000)), rows=["r"] * 500, columns=["c"] * 3000)
    assert len(big) < 200_000
    assert "Shown are the first 32 of 500 rows and the first 40 of 3000 columns." in Read(big).text
    long = Generation("", "x", [1] * 9000, [-1.0] * 9000, "length")._repr_html_()
    assert len(long) < 150_000
    assert "8,400 more tokens" in Read(long).text


@pytest.mark.parametrize(("page", "ink"), [(0xFF, 0x21), (0x11, 0xDE)], ids=["light", "dark"])
def test_text_on_the_strongest_tint_keeps_its_contrast(page: int, ink: int) -> None:
    def light(rgb: tuple[float, ...]) -> float:  # WCAG 2, relative luminance
        linear = [v / 12.92 if (v := one / 255) <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for one in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for share in (-1.0, 1.0):
        *colour, opacity = (float(one) for one in re.findall(r"[\d.]+", tint(share)))
        behind = light(tuple(opacity * one + (1 - opacity) * page for one in colour))
        high, low = sorted((behind, light((ink,) * 3)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_a_page_is_a_text_and_a_frame_that_reaches_nothing() -> None:
    page = Page("<!DOCTYPE html><title>\"a\" & 'b'</title>")
    assert page == "<!DOCTYPE html><title>\"a\" & 'b'</title>"
    read = Read(page._repr_html_())
    assert read.tags == {"iframe"}
    assert dict(read.attributes)["srcdoc"] == page
    assert dict(read.attributes)["sandbox"] == "allow-scripts"  # and not allow-same-origin


def test_a_result_in_another_process_has_numbers_for_tokens(results: dict[str, Any]) -> None:
    for name in ("lens", "firing", "patching by position", "nodes by atp", "inputs by saliency", "dashboard"):
        again = pickle.loads(pickle.dumps(results[name]))
        assert "<script>alert" not in Read(again._repr_html_()).text
        assert repr(again) == repr(results[name])


def test_a_graph_of_features_shows_its_largest_edges() -> None:
    plain = as_loaded()
    model = HostileModel(plain.params, plain.config, backend="numpy")
    made = transcoders("transcoder", "ln2.hook_normalized")
    found = graph(model, made, golden()["ids"][0].tolist(), 4)
    read = Read(found._repr_html_())
    assert read.tags <= TAGS
    assert float(read.cells[2]) == pytest.approx(found.edges[-1][np.abs(found.edges[-1]).argmax()], abs=0.0051)
    assert "\n" not in repr(found)


def test_tokens_are_texts_where_there_is_a_tokenizer() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    text = "A fox — 漢 🦊"
    assert "".join(model.to_str_tokens("A fox")) == "A fox"
    ids = model.tokenizer.encode(text)
    assert model.to_str_tokens([ids[0]]) == ["A"]
    with pytest.raises(ValueError, match="to_str_tokens takes one prompt, got 2 rows"):
        model.to_str_tokens([ids, ids])
    assert as_loaded().to_str_tokens([3, 1]) == ["3", "1"]
    out = model.generate(text, max_new_tokens=5, forced_eos_token_id=0)
    assert "".join(out.tokens).startswith(out.text)
    from gpt2_np.text.results import completed

    assert "".join(completed(ids, model.tokenizer)) == text
    assert "".join(completed(ids[:-1], model.tokenizer)) == model.tokenizer.decode(ids[:-1])


def test_a_picture_shows_itself_without_pyplot() -> None:
    figure = plots.heat(np.eye(2), title="x", x="a", y="b")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_nothing_of_it_needs_matplotlib() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from gpt2_np import GPT2
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution, lens, patching
model = GPT2.from_pretrained(backend="numpy")
shown = [model, model.generate("A", max_new_tokens=2), lens.logit_lens(model, "A fox"),
         patching.activation_patch(model, "A fox", "A dog", logit_difference(" he", " she"))]
assert all("</" in one._repr_html_() for one in shown)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_values_in_few_characters() -> None:
    class Plain(display.Readable):
        def __init__(self) -> None:
            self.name, self.call, self._hidden = "x" * 100, brief, 1

    assert repr(Plain()) == f"Plain(name={'x' * 60!r}…, call=brief)"
    assert brief(np.float32(0.5)) == "0.5"
    assert brief({"a": 1}) == "1 entries"
    assert brief([0.1 + 0.2, "a"]) == "[0.3, 'a']"
    assert brief([[1], [2]]) == "2 items"
    assert brief(lambda x: x).endswith("<lambda>")


@pytest.fixture(autouse=True)
def no_pyplot() -> Iterator[None]:
    """Showing a result changes nothing that is global."""
    before = "matplotlib.pyplot" in sys.modules
    yield
    assert ("matplotlib.pyplot" in sys.modules) == before

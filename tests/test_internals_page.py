"""The page of a prompt, opened and used in a real browser: what it shows is what the model says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pytest
from reference import reference_model, save

from gpt2_np.internals import page as page_module
from gpt2_np.internals.page import inspect_page
from gpt2_np.text.gpt2 import GPT2

PROMPT = "</script><script>document.title='x'</script><b>&lt; <img src=x onerror=alert(1)> @DATA@ \u2028 \"é\"\n日"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GPT2:
    """A small random model whose tokens are single bytes."""
    folder = save(reference_model(vocab_size=257, n_positions=300), tmp_path_factory.mktemp("bytes"))
    import tokenizers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0} | {letter: number + 1 for number, letter in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return GPT2.from_pretrained(folder)


@pytest.fixture(scope="module")
def chrome() -> Iterator[browser.Browser]:
    with browser.start() as opened:
        yield opened


@pytest.fixture
def page(chrome: browser.Browser, model: GPT2, tmp_path: Path) -> browser.Browser:
    (tmp_path / "page.html").write_text(inspect_page(model, PROMPT), encoding="utf-8")
    chrome.resize(1100, 900)
    chrome.open(tmp_path / "page.html")
    return chrome


def test_a_prompt_is_text_whatever_it_says(page: browser.Browser, model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    shown = page.run("return [...document.querySelectorAll('#tokens button')].map(b => b.textContent)")
    assert shown == [token.replace("\n", "↵") for token in model.tokenizer.tokens(ids)]
    assert page.run("return document.title").startswith("gpt2-np: </script><script>document.title='x'")
    assert page.run("return document.querySelectorAll('img, b:not(#target-name), script').length") == 2  # its own two
    assert page.complaints() == []


def test_nothing_is_fetched_and_nothing_may_be(page: browser.Browser) -> None:
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    page.run("new Image().src = 'https://example.com/a.png'; fetch('https://example.com/b').catch(() => 0)")
    refused, deadline = [], time.monotonic() + 10
    while len(refused) < 2 and time.monotonic() < deadline:
        refused += [line for line in page.complaints() if "Content Security Policy" in line]
    assert any("a.png" in line for line in refused)
    assert any("example.com/b" in line for line in refused)


def test_what_it_shows_is_what_the_model_says(page: browser.Browser, model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    logits, cache = model.run_with_cache(ids)
    position = 7
    page.click(f"#tokens button:nth-child({position + 1})")
    p = np.exp(logits[position] - logits[position].max())
    p /= p.sum()
    first = model.tokenizer.decode([int(p.argmax())]).replace("\n", "↵").replace("\t", "⇥") or "∅"
    assert page.text("#next code") == first
    assert abs(float(page.text("#next .number").rstrip("%")) / 100 - p.max()) < 0.006
    page.click("#heads button[aria-label='layer 2 head 3']")
    assert page.text("#head-name") == "Layer 2, head 3"
    key = int(cache["pattern", 2][0, 3, position].argmax())
    assert f"({position}) looks at" in page.text("#look-out")
    assert f"({key})" in page.text("#look-out").split("looks at")[1].split(",")[0]
    stack, labels = cache.stack_head_results()
    effect = cache.logit_attrs(stack, int(p.argmax()))[labels.index("L1H2"), 0, position]
    cell = "#attribution tbody tr:nth-child(2) td:nth-of-type(3)"
    assert abs(float(page.text(cell)) - effect) < 0.006
    page.run("const s = document.getElementById('target'); s.value = 'actual'; s.dispatchEvent(new Event('change'))")
    effect = cache.logit_attrs(stack, ids[position + 1])[labels.index("L1H2"), 0, position]
    assert abs(float(page.text(cell)) - effect) < 0.006
    page.click("#tokens button:last-child")
    assert "nothing follows" in page.text("#target-name")


def test_a_long_prompt_is_whole(chrome: browser.Browser, model: GPT2, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(1, 257, 300).tolist()
    (tmp_path / "page.html").write_text(inspect_page(model, ids), encoding="utf-8")
    chrome.open(tmp_path / "page.html")
    pattern = model.run_with_cache(ids, "blocks.*.attn.pattern")[1].stack_activation("pattern")[:, 0]
    for place in ((0, 1, 299, 299), (2, 3, 299, 120), (1, 0, 150, 77), (2, 0, 0, 0)):
        assert abs(chrome.run("return attention(...arguments)", *place) - pattern[place]) <= 0.5 / 255 + 1e-6
    assert chrome.run("return document.querySelector('.head canvas').width") == 100
    chrome.click("#tokens button:nth-child(300)")
    assert chrome.text("#next-about").endswith("(position 299).")
    assert chrome.complaints() == []


def test_it_opens_on_the_head_that_says_most(page: browser.Browser, model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    logits, cache = model.run_with_cache(ids)
    stack, labels = cache.stack_head_results()
    effect = np.abs(cache.logit_attrs(stack, int(logits[-1].argmax()))[:, 0, -1])
    names = [label for label in labels if "H" in label]
    loudest = max(names, key=lambda name: effect[labels.index(name)])
    assert page.text("#head-name") == "Layer {}, head {}".format(*loudest[1:].split("H"))


def test_the_chosen_head_is_enlarged_and_coloured_by_row(page: browser.Browser, model: GPT2) -> None:
    T = len(model.tokenizer.encode(PROMPT))
    page.click("#heads button[aria-label='layer 1 head 2']")
    page.run(
        "const at = n => (drawn.margin + (n + .5) * drawn.cell) * devicePixelRatio;"
        "drawn.probe = (q, k) => [...$('matrix').getContext('2d').getImageData(at(k), at(q), 1, 1).data]"
    )
    pattern = model.run_with_cache(model.tokenizer.encode(PROMPT))[1]["pattern", 1][0, 2]
    for query in (3, 20, T - 2):
        key = int(pattern[query].argmax())
        assert page.run("return drawn.probe(...arguments)", query, key)[3] == pytest.approx(0.6 * 255, abs=2)
        other = int(pattern[query, : query + 1].argmin())
        share = page.run("const [q, k] = arguments; return attention(1, 2, q, k) / largest(1, 2, q)", query, other)
        assert abs(share - pattern[query, other] / pattern[query, key]) < 1 / 255 / pattern[query, key]
        assert page.run("return drawn.probe(...arguments)", query, other)[3] == pytest.approx(0.6 * 255 * share, abs=3)
    assert page.run("return drawn.probe(3, 9)[3]") == 0  # nobody looks ahead
    page.run(
        "const c = $('matrix'), b = c.getBoundingClientRect(), at = n => drawn.margin + (n + .5) * drawn.cell;"
        "c.dispatchEvent(new MouseEvent('click', {clientX: b.left + at(2), clientY: b.top + at(6)}));"
        "c.dispatchEvent(new MouseEvent('mousemove', {clientX: b.left + at(2), clientY: b.top + at(6)}))"
    )
    assert page.text("#next-about").endswith("(position 6).")
    assert "(6) looks at" in page.text("#look-out")
    assert "(2)" in page.text("#look-out")


def test_the_width_is_used_and_what_scrolls_says_so(page: browser.Browser) -> None:
    hints = (
        "return [...document.querySelectorAll('.scroll')]"
        ".map(b => [b.scrollWidth > b.clientWidth + 1, !b.nextSibling.hidden])"
    )
    seen = []
    for width in (360, 1900):
        page.resize(width, 900)
        time.sleep(0.2)  # the observer of sizes comes after the layout
        found = page.run(hints)
        assert all(scrolls == told for scrolls, told in found)
        seen.append(sum(scrolls for scrolls, _ in found))
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert seen[0] > seen[1]
    assert page.run("return document.querySelector('main').clientWidth") > 1700
    tops = page.run("return ['h-next', 'h-owed'].map(id => $(id).closest('section').getBoundingClientRect().left)")
    assert tops[0] != tops[1]


def test_hovering_shows_where_a_token_looks_and_leaving_forgets_it(page: browser.Browser) -> None:
    page.hover("#looking button:nth-child(4)")
    assert "(3) looks at" in page.text("#look-out")
    page.hover("h1")
    last = page.run("return document.querySelectorAll('#tokens button').length") - 1
    assert f"({last}) looks at" in page.text("#look-out")
    page.hover("#lens tbody tr:nth-child(2) td:nth-of-type(5) button")
    assert page.text("#lens-out").startswith("2_pre, after “")


def test_every_part_can_be_reached_and_used_by_keyboard(page: browser.Browser) -> None:
    where = "const e = document.activeElement; return (e.closest('[role=group], table') || e).id"
    visited = []
    for _ in range(6):
        page.press("Tab")
        visited.append(page.run(where))
    assert visited[:3] == ["tokens", "heads", "looking"]
    assert {"target", "lens"} <= set(visited)
    page.click("#heads button[aria-label='layer 0 head 0']")
    page.run("document.querySelector('#tokens [tabindex=\"0\"]').focus()")
    page.press("Home", "ArrowRight", "ArrowRight")
    assert page.text("#next-about").endswith("(position 2).")
    page.press("Tab")
    page.press("ArrowDown", "ArrowRight")
    assert page.text("#head-name") == "Layer 1, head 1"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.run(outline) == "solid"


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_can_be_read(page: browser.Browser, dark: bool) -> None:
    page.resize(360, 800)
    page.dark(dark)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 26)" if dark else "rgb(251, 250, 247)"
    )
    page.click("#tokens button:nth-child(30)")  # its column of the lens is scrolled into view
    edges = page.run(
        "const box = e => e.getBoundingClientRect(), table = document.getElementById('lens');"
        "const a = box(table.querySelector('td.here')), b = box(table.parentElement);"
        "return [a.left - b.left, b.right - a.right]"
    )
    assert min(edges) >= 0
    contrast = page.run(CONTRAST)
    page.dark(False)
    assert contrast["worst"] >= 4.5, contrast


# The least contrast (WCAG 2, formula 1.4.3) between any text and what lies behind it.
CONTRAST = """
const parts = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
function behind(node) {
  if (!node) return [255, 255, 255];
  const [r, g, b, a = 1] = parts(getComputedStyle(node).backgroundColor);
  if (a === 0) return behind(node.parentElement);
  const under = a < 1 ? behind(node.parentElement) : [0, 0, 0];
  return [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
}
let worst = 99, where = '';
for (const node of document.querySelectorAll('main *, header *')) {
  const own = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
  if (!own || +getComputedStyle(node).opacity < 1) continue;
  const [x, y] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
  const ratio = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  if (ratio < worst) { worst = ratio; where = node.outerHTML.slice(0, 200); }
}
return {worst, where};
"""


def test_mistakes_are_one_line(model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST_TOKENS", 20)
    with pytest.raises(ValueError, match="a page holds at most 20 tokens, got 21"):
        inspect_page(model, [1] * 21)
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        inspect_page(model, "a", top=0)

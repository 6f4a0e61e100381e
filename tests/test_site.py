"""The documentation's pages: all are in the site's navigation, lead to each other, and show code that a test runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HOOKS = runpy.run_path(str(ROOT / "scripts" / "site_hooks.py"))
NAV = (ROOT / ".ci" / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1].split("\n\n")[0]
# Which test runs a page's blocks of Python; the guide's documents all have the same one.
RUN_BY = {
    "README.md": "test_site.py",
    "attribution.md": "test_attribution_page.py",
    "bundles.md": "test_bundle.py",
    "coming-from.md": "test_coming_from.py",
    "corpora.md": "test_corpora_page.py",
    "dictionaries.md": "test_dictionaries_page.py",
    "evaluate.md": "test_evaluation_page.py",
    "gradients.md": "test_gradients_page.py",
    "in-your-program.md": "test_server_docs.py",
    "serve.md": "test_server_docs.py",
    "training.md": "test_training_page.py",
    "decoding/README.md": "test_decoding_docs.py",
    "guide": "test_guide.py",
    "how": "test_reference.py",
}
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"([\w./-]+\.md)", NAV))
    folders = tuple(f"{one}/" for one in re.findall(r"([\w/]+)/\*", NAV))
    assert [page for page in PAGES if page not in named and not page.startswith(folders)] == []
    assert [page for page in named if page not in PAGES and not (ROOT / page.removeprefix("project/")).is_file()] == []


def test_the_front_page_leads_to_each_section() -> None:
    links = set(re.findall(r"\]\(([^)#]+)", (DOCS / "README.md").read_text(encoding="utf-8")))
    missing = [page for page in PAGES if "/" not in page and page not in links | {"README.md"}]
    assert missing == []
    for folder in ("decoding", "guide", "how", "reference"):
        assert f"{folder}/README.md" in links


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_code_is_run_by_a_test(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    if "```python" not in text:
        return
    test = RUN_BY.get(page) or RUN_BY.get(page.split("/")[0])
    assert test is not None, f"{page} shows code: name the test that runs it"
    assert (ROOT / "tests" / test).is_file()


def test_the_front_page_runs() -> None:
    defined: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, "README.md", "exec"), defined)
    assert "logits" in defined


def test_links_out_of_the_docs_lead_to_pages_of_the_site() -> None:
    relinked, source = HOOKS["relinked"], DOCS / "how" / "README.md"
    text = "see [a](../../gpt2_np/model/ops.py), [b](forward.md#x), [c](https://x.org/a.py), [d](../../README.md#e)"
    expected = "see [a](../project/gpt2_np/model/ops.py.md), [b](forward.md#x), [c](https://x.org/a.py), "
    assert relinked(text, source, "how/README.md", DOCS) == expected + "[d](../project/README.md#e)"
    back = relinked("[a](docs/speed.md) [b](docs/decoding)", ROOT / "README.md", "project/README.md", DOCS)
    assert back == "[a](../speed.md) [b](../decoding/README.md)"


def test_a_notebook_s_links_lead_to_pages_of_the_site() -> None:
    output = '<a href="../decoding/README.md#top_k">a</a> <a href="circuit.ipynb">b</a> <a href="../speed.html">c</a>'
    output += ' <a href="../../gpt2_np/model/ops.py">d</a> <a href="https://x.org/a.md">e</a>'
    expected = '<a href="../decoding/index.html#top_k">a</a> <a href="circuit.html">b</a> <a href="../speed.html">c</a>'
    expected += ' <a href="../project/gpt2_np/model/ops.py.html">d</a> <a href="https://x.org/a.md">e</a>'
    assert HOOKS["of_notebook"](output, "notebooks/first-words.ipynb", DOCS) == expected


def test_a_reference_page_gets_the_documentation_of_its_names() -> None:
    page = "| [`train()`](../../gpt2_np/training/loop.py) | It. |\n\n<!-- reference: gpt2_np.training: train -->\n"
    shown = HOOKS["documented"](page)
    assert "| [`train`](#gpt2_np.training.train) | It. |" in shown
    assert "\n::: gpt2_np.training.train\n" in shown
    assert "<!--" not in shown


def test_a_nav_is_spelled_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("one.md", "two.ipynb", "three.txt"):
        (tmp_path / "a" / name).touch()
    nav = [{"Start": ["x.md", {"More": "a/*"}, "b/*", {"None": "b/*"}]}]
    assert HOOKS["spelled_out"](nav, tmp_path) == [{"Start": ["x.md", {"More": ["a/one.md", "a/two.ipynb"]}]}]
    assert HOOKS["spelled_out"]([{"A": ["a/one.md", "a/*"]}], tmp_path) == [{"A": ["a/one.md", "a/two.ipynb"]}]


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">a</h1><a href="b.html#here"></a><a href="#gone"></a><img src="c.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1><a href="a.html#top"></a><a href="https://x.org/y"></a>')
    assert HOOKS["broken_links"](tmp_path) == ["a.html: #gone: there is no such place", "a.html: c.png leads nowhere"]

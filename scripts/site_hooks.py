"""Hooks for the documentation site: mkdocs calls these functions while it builds.

The pages in docs are plain Markdown, which GitHub can show. For the site, these hooks change the following:

- a nav entry ``folder/*`` becomes the pages of that folder, and a folder that isn't there is left out;
- a link to a file outside docs (`../gpt2_np/model/ops.py`) leads to a page of the site that shows the file;
- a comment ``<!-- reference: module: names -->`` becomes the documentation of these names, from their docstrings, and
  the table above it leads there;
- formulas become MathML, which browsers draw without a script;
- a notebook's links lead to the site's pages;
- every link within the finished site is followed, its anchor included: one that leads nowhere is a warning, and with
  ``--strict`` warnings are errors.
"""

from __future__ import annotations

import html
import logging
import os
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

log = logging.getLogger("mkdocs.hooks.site")
ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
REFERENCE = re.compile(r"^<!-- reference: ([\w.]+): ([\w ]+) -->$", re.MULTILINE)
ROW = re.compile(r"^\| \[`(\w+)[()]*`\]\([^)]+\)", re.MULTILINE)
FENCE = re.compile(r"^(```\w+) \w+$", re.MULTILINE)  # "```python harness": the second word is for the tests
MATHS = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"  # a file's code is found by its name in the reference
PICTURES = (".png", ".svg", ".jpg")
LANGUAGES = {".py": "python", ".md": "markdown", ".toml": "toml", ".yml": "yaml", ".json": "json", ".c": "c"}


def on_config(config: Any) -> Any:
    """The configuration with a nav entry ``folder/*`` spelled out."""
    docs = Path(config["docs_dir"])
    config["nav"] = spelled_out(config["nav"], docs)
    return config


def spelled_out(nav: list[Any], docs: Path) -> list[Any]:
    """A nav in which ``folder/*`` stands for those of the folder's pages that it doesn't name."""
    named = set(re.findall(r"'([^']+\.(?:md|ipynb))'", repr(nav)))
    out: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            out.append({title: spelled_out(value, docs)})
        elif value.endswith("/*"):
            found = [path.relative_to(docs).as_posix() for path in in_order(docs / value[:-2])]
            found = [path for path in found if path not in named]
            out += found if title is None else [{title: found}] if found else []
        else:
            out.append(entry)
    return out


def in_order(folder: Path) -> list[Path]:
    """A folder's pages: its README, what that leads to in its order, and the others by their names."""
    pages = [path for kind in ("md", "ipynb") for path in folder.glob(f"*.{kind}")]
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme in pages else ""
    places = {path: text.find(f"]({path.name})") for path in pages}
    return sorted(pages, key=lambda path: (path != readme, places[path] < 0, places[path], path.name))


def on_files(files: Any, config: Any) -> Any:
    """The site's files with a page for each file outside docs that a page of docs leads to."""
    from mkdocs.structure.files import File, InclusionLevel

    docs, waiting = Path(config["docs_dir"]), []
    known: set[Path] = set()
    for file in list(files):
        if file.src_uri.endswith((".md", ".ipynb")):
            waiting.append((docs / file.src_uri, Path(file.abs_src_path).read_text(encoding="utf-8")))
    while waiting:
        path, text = waiting.pop()
        for target in {outside(path, link[1], docs) for link in LINK.findall(text)} - {None, *known}:
            assert target is not None
            known.add(target)
            content = target.read_bytes() if target.suffix in PICTURES else shown(target)
            file = File.generated(config, page_of(target), content=content)
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
            if isinstance(content, str) and target.suffix == ".md":
                waiting.append((target, content))
    return files


def outside(page: Path, link: str, docs: Path) -> Path | None:
    """The file of the project, outside docs, that a page's link leads to; a folder stands for its README."""
    target = Path(os.path.normpath(page.parent / link))
    if docs in target.parents or target == docs or ROOT not in target.parents or not target.exists():
        return None
    readme = target / "README.md"
    return readme if readme.is_file() else target


def page_of(target: Path) -> str:
    """Return the place on the site of a file outside docs."""
    inside = target.relative_to(ROOT).as_posix()
    return f"project/{inside}" if target.suffix in {".md", *PICTURES} else f"project/{inside}.md"


def shown(target: Path) -> str:
    """A file as a page: Markdown as it is, all else as a block of code; a folder as the list of its files."""
    if target.is_dir():
        files = [path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if path.is_file()]
        return f"{UNSEARCHED}# {target.name}\n\n" + "".join(f"- `{name}`\n" for name in files)
    text = target.read_text(encoding="utf-8")
    if target.suffix == ".md":
        return text
    ticks = "`" * (1 + max((len(run) for run in re.findall("`{3,}", text)), default=2))
    name = target.relative_to(ROOT).as_posix()
    block = f"{ticks}{LANGUAGES.get(target.suffix, 'text')}\n{text.rstrip()}\n{ticks}\n"
    return f"{UNSEARCHED}# {target.name}\n\n`{name}`\n\n{block}"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page's text as the site needs it."""
    docs, uri = Path(config["docs_dir"]), page.file.src_uri
    if uri.startswith("project/"):
        inside = uri.removeprefix("project/")
        source = ROOT / (inside if (ROOT / inside).exists() else inside.removesuffix(".md"))
        if source.suffix != ".md" or source.is_dir():
            return markdown
    else:
        source = docs / uri
    if uri.startswith("reference/"):
        markdown = documented(markdown)
    return FENCE.sub(r"\1", relinked(markdown, source, uri, docs))


def relinked(markdown: str, source: Path, uri: str, docs: Path) -> str:
    """Links out of docs lead to the pages of what they lead to; those of other files into docs to its pages."""

    def changed(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        target = outside(source, link, docs)
        place = None if target is None else page_of(target)
        if place is None and uri.startswith("project/"):
            inside = Path(os.path.normpath(source.parent / link))
            inside = inside / "README.md" if inside.is_dir() else inside
            if docs in inside.parents and inside.exists():
                place = inside.relative_to(docs).as_posix()
        if place is None:
            return found[0]
        return f"{before}{posixpath.relpath(place, posixpath.dirname(uri) or '.')}{after}"

    return LINK.sub(changed, markdown)


def documented(markdown: str) -> str:
    """A reference page with the documentation of its names in full, where on GitHub only the table is."""
    parts, end = [], 0
    for found in REFERENCE.finditer(markdown):
        module, names = found[1], found[2].split()
        table = ROW.sub(lambda row: f"| [`{row[1]}`](#{module}.{row[1]})", markdown[end : found.start()])  # noqa: B023
        parts += [table, *(f"\n::: {module}.{name}\n" for name in names)]
        end = found.end()
    return "".join([*parts, markdown[end:]])


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """A page's HTML with its formulas as MathML."""
    return MATHS.sub(lambda found: mathml(html.unescape(found[2]), found[1] == "div"), content)


def mathml(formula: str, block: bool) -> str:
    """A formula in TeX as MathML; a command of TeX that the converter doesn't know is a warning."""
    from latex2mathml.converter import convert

    known = formula.strip().replace(r"\arg", r"\text{arg}")
    found = str(convert(known, display="block" if block else "inline"))
    if "\\" in found:
        log.warning("a formula has a command that is shown as it stands: %s", formula.strip())
    return found


def on_post_page(output: str, page: Any, config: Any) -> str:
    """A page as it is written: a notebook's links, which no one else changes, lead to the site's pages."""
    uri, docs = page.file.src_uri, Path(config["docs_dir"])
    return of_notebook(output, uri, docs) if uri.endswith(".ipynb") else output


def of_notebook(output: str, uri: str, docs: Path) -> str:
    """A notebook's page with links to pages, notebooks and files outside docs as links to their pages."""

    def changed(found: re.Match[str]) -> str:
        target = outside(docs / uri, found[1], docs)
        inside = posixpath.join(posixpath.dirname(uri), found[1])
        place = page_of(target) if target is not None else posixpath.normpath(inside)
        if target is None and not (docs / place).is_file():
            return found[0]
        place = re.sub(r"(^|/)README\.md$", r"\1index.html", place)
        place = re.sub(r"\.(md|ipynb)$", ".html", place)
        return f'href="{posixpath.relpath(place, posixpath.dirname(uri))}{found[2] or ""}"'

    return re.sub(r'href="([^":#]+\.(?:md|ipynb|py))(#[^"]*)?"', changed, output)


class Anchors(HTMLParser):
    """The anchors of a page, and its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One tag: its id, and its link."""
        given = dict(attrs)
        self.names |= {given[name] or "" for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] or "" for name in ("href", "src") if given.get(name)}


def on_post_build(config: Any) -> None:
    """Follow every link within the site; warn of each that leads nowhere."""
    for complaint in broken_links(Path(config["site_dir"])):
        log.warning(complaint)


def broken_links(site: Path) -> list[str]:
    """One line for each link within a site that leads to no file, or to no such place in it."""
    pages = {path: Anchors(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    complaints = []
    for path, page in pages.items():
        for link in sorted(page.links) if path.name != "404.html" else []:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else Path(os.path.normpath(path.parent / unquote(parts.path)))
            target = target / "index.html" if target.is_dir() else target
            here = f"{path.relative_to(site)}: {link}"
            if not target.exists():
                complaints.append(f"{here} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                complaints.append(f"{here}: there is no such place")
    return complaints

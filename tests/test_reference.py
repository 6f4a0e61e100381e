"""The API reference tells of every public name, once, and is what the code says; the pages about the code show it."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "build_reference.py"))
HOW = runpy.run_path(str(ROOT / "scripts" / "build_how.py"))
TOLD = re.compile(r"^<!-- reference: ([\w.]+): ([\w ]+) -->$", re.MULTILINE)
MODULES = SCRIPT["modules"]()


def told() -> Counter[tuple[str, str]]:
    """(where it is written, name) of every name that a page tells of, and how often."""
    found: Counter[tuple[str, str]] = Counter()
    for page in FOLDER.glob("*.md"):
        for module, names in TOLD.findall(page.read_text(encoding="utf-8")):
            for name in names.split():
                written = SCRIPT["defined"](MODULES, module, name)
                assert written is not None, f"{page.name}: {module} has no {name}"
                found[written.module, name] += 1
    return found


def loaded(name: str) -> ModuleType | None:
    """A module; None where a package that it needs isn't installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"gpt2_np", "decoders"}:
            raise
        return None


def test_the_pages_are_as_the_code_says() -> None:
    # In a process of its own: click keeps a command's help option as it was first asked for, with -h or without.
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['every_page']()))"
    script = str(ROOT / "scripts" / "build_reference.py")
    pages = json.loads(subprocess.check_output([sys.executable, "-c", code, script], text=True, cwd=ROOT))
    for name, text in pages.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run scripts/build_reference.py"
    assert {path.name for path in FOLDER.glob("*.md")} == pages.keys()


def test_every_public_name_is_told_once() -> None:
    """By what Python itself finds in each module, which the script doesn't import."""
    counts, missing = told(), []
    for name in MODULES:
        module = None if name == "gpt2_np.torch_reference" else loaded(name)  # torch takes seconds
        if module is None:
            continue
        public = {
            one: value
            for one, value in vars(module).items()
            if not one.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == name
            and value.__qualname__ == one
        }
        missing += [(name, one) for one in public if (name, one) not in counts]
        for one in getattr(module, "__all__", ()):
            try:
                value = getattr(module, one)
            except ImportError:  # a package of an extra
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                missing += [] if (value.__module__, one) in counts else [(name, one)]
    assert missing == []
    assert [name for name, count in counts.items() if count > 1] == []
    assert len(counts) > 1000


def test_a_name_has_a_sentence() -> None:
    for page in FOLDER.glob("gpt2_np*.md"):
        for row in re.findall(r"^\| \[`.*$", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(r"\S \|$", row), row


def test_a_first_sentence_is_found() -> None:
    for text, expected in (
        ("What it is. And more.", "What it is."),
        ("Radford et al. 2019, section 2.3.", "Radford et al. 2019, section 2.3."),
        ("One line\nand its end.\n\nMore.", "One line and its end."),
        ("No full stop", "No full stop"),
        ("a | b.", "a \\| b."),
    ):
        assert SCRIPT["sentence"](text) == expected


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "how").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_about_the_code_shows_it_and_runs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOW["written"](text) == text, "run scripts/build_how.py"
    defined: dict[str, object] = {}
    for block in HOW["own_blocks"](text):
        exec(compile(block, str(page), "exec"), defined)


def test_code_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("def here():\n    pass\n")
    assert HOW["source"](path, ["here"]) == "def here():\n    pass"
    with pytest.raises(LookupError, match=r"a\.py has no gone"):
        HOW["source"](path, ["gone"])

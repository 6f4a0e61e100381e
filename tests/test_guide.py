"""The guide's documents run from start to end, and their own assertions hold on the bundled model."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "build_guide.py"))
DOCUMENTS = sorted(path for path in SCRIPT["GUIDE"].glob("*.md") if "```python" in path.read_text(encoding="utf-8"))


def test_every_study_is_there() -> None:
    studies = ["circuit", "features", "finetuning", "induction", "inputs", "lenses", "patching", "steering"]
    assert [path.stem for path in DOCUMENTS] == studies


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_study_runs_and_draws_every_figure_that_it_shows(document: Path, tmp_path: Path) -> None:
    fresh = SCRIPT["run_document"](document, tmp_path)
    shown = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", document.read_text(encoding="utf-8"))
    assert shown
    for name in shown:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (document.parent / name).is_file(), f"{name} is not there: run scripts/build_guide.py"
    without_numbers = [
        re.sub(r"^```text\n.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)
        for text in (fresh, document.read_text(encoding="utf-8"))
    ]
    assert without_numbers[0] == without_numbers[1], "outputs are missing or left over: run scripts/build_guide.py"


def test_a_document_gets_its_outputs_once_and_for_all(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n\n```python\nx = 2\n```\n\ntext\n\n```python\nprint(x)\n```\n\nend\n")
    once = SCRIPT["run_document"](path, tmp_path)
    assert once == "# A\n\n```python\nx = 2\n```\n\ntext\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n\nend\n"
    path.write_text(once.replace("```text\n2", "```text\nold"))
    assert SCRIPT["run_document"](path, tmp_path) == once

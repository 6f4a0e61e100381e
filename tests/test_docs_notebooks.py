"""The notebooks: their code runs, they are what their texts say, and their outputs are small and of no machine."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "build_notebooks.py"))
NAMES, FOLDER = SCRIPT["NAMES"], SCRIPT["NOTEBOOKS"]


def test_there_are_five_and_the_index_names_them_in_order() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)
    assert sorted(path.stem for path in SCRIPT["TEXTS"].glob("*.md")) == sorted(NAMES)
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"\]\(([\w-]+)\.ipynb\)", index)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_s_code_runs_without_jupyter(name: str) -> None:
    shown = SCRIPT["run_plainly"](name)
    assert shown
    assert not any(" at 0x" in one for one in shown), "what a cell ends in must have a repr"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_text_says(name: str) -> None:
    same = SCRIPT["sources"](SCRIPT["committed"](name)) == SCRIPT["sources"](SCRIPT["notebook"](name))
    assert same, f"run python scripts/build_notebooks.py {name}"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_shows_is_whole_small_and_of_no_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", text)
    found = json.loads(text)
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {one["output_type"] for cell in code for one in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}
    rich = [kind for cell in code for one in cell["outputs"] for kind in one.get("data", ())]
    assert {"text/html", "image/png"} & set(rich)
    if importlib.util.find_spec("nbformat"):
        import nbformat

        nbformat.validate(nbformat.reads(text, as_version=4))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_s_links_lead_somewhere(name: str) -> None:
    prose = "".join(text for kind, text in SCRIPT["sources"](SCRIPT["notebook"](name)) if kind == "markdown")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose)
    assert links
    for link in links:
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_code_fits_a_notebook_s_width(name: str) -> None:
    code = [text for kind, text in SCRIPT["sources"](SCRIPT["notebook"](name)) if kind == "code"]
    assert max(len(line) for text in code for line in text.splitlines()) <= 104


def test_a_text_becomes_cells_and_its_code_stays_code() -> None:
    text = "# A\n\nprose\n\n```python\nx = 1\n\ny = 2\n```\n\n```python\nx\n```\n\nend\n"
    cells = SCRIPT["cells"](text)
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == [
        ("markdown", "# A\n\nprose"),
        ("code", "x = 1\n\ny = 2"),
        ("code", "x"),
        ("markdown", "end"),
    ]
    assert len({cell["id"] for cell in cells}) == 4


@pytest.mark.parametrize(
    "output", [{"output_type": "stream", "name": "stderr", "text": "a warning"}, {"data": {"text/plain": str(ROOT)}}]
)
def test_a_warning_or_a_path_of_this_machine_is_refused(output: dict) -> None:
    with pytest.raises(ValueError, match="must be free of warnings and of this machine's paths"):
        SCRIPT["output"](output)


@pytest.mark.slow
def test_they_run_in_jupyter() -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "build_notebooks.py"), "--check"], check=True)

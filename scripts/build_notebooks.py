"""Write the notebooks of ``docs/notebooks``, with their outputs, from the texts of ``scripts/notebooks``.

    python scripts/build_notebooks.py [--check] [NAME …]

It needs ``pip install '.[jupyter,plots]'``. A text is Markdown, whose ``python`` blocks become code cells and whose
rest becomes prose. They are executed in a fresh Jupyter kernel; pictures are kept with at most 64 colours, and nothing
of the machine is kept. With ``--check`` everything is executed, but nothing is written: the exit status is 1 if a cell
fails, or if a committed notebook's prose or code isn't that of its text.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TEXTS, NOTEBOOKS = ROOT / "scripts" / "notebooks", ROOT / "docs" / "notebooks"
NAMES = ("first-words", "inside-one-prompt", "induction-head", "circuit", "fine-tune")  # in the order of reading
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLOURS = 64
SECONDS = 600  # that a cell may take on a slow machine
SHOWS = ("_repr_html_", "_repr_png_")


def cells(text: str) -> list[dict[str, Any]]:
    """Return the cells of a text: prose and code in turns, in the format of a notebook, without outputs."""
    found: list[dict[str, Any]] = []
    for number, part in enumerate(BLOCK.split(text)):
        source = part.strip("\n")
        if source:
            cell: dict[str, Any] = {"cell_type": "markdown", "id": f"cell-{len(found):02}", "metadata": {}}
            cell["source"] = lines(source)
            if number % 2:
                cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
            found.append(cell)
    return found


def lines(text: str) -> list[str]:
    """Return a text as a notebook's file holds it: line by line, so that changes can be read in a diff."""
    return text.splitlines(keepends=True)


def notebook(name: str) -> dict[str, Any]:
    """Return the notebook of a text, not executed yet."""
    about = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    made = cells((TEXTS / f"{name}.md").read_text(encoding="utf-8"))
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def sources(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the kind and the text of every cell of a notebook, without its outputs."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]]


def run_plainly(name: str) -> list[str]:
    """Execute a notebook's code without Jupyter, and show what Jupyter would show: a cell's last expression.

    Return what was shown: HTML, pictures' bytes and a terminal's lines, as texts.
    """
    namespace: dict[str, Any] = {"__name__": name}
    shown: list[str] = []
    for number, (kind, code) in enumerate(sources(notebook(name))):
        if kind != "code":
            continue
        tree, where = ast.parse(code), f"{name}, cell {number}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, where, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), namespace)
            for way in SHOWS:
                if hasattr(value, way):
                    shown.append(str(getattr(value, way)()))
            if value is not None:
                shown.append(repr(value))
    return shown


def execute(found: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with its outputs, executed by a fresh kernel in an empty folder."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    node = nbformat.reads(json.dumps(found), as_version=4)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        # Sockets in a folder of ours, where the system has such: nobody else can listen.
        private = {} if os.name == "nt" else {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        kernel = AsyncKernelManager(kernel_name="python3", **private)
        about = {"metadata": {"path": folder}}
        NotebookClient(node, km=kernel, timeout=SECONDS, startup_timeout=SECONDS, resources=about).execute()
    return found | {"cells": [cleaned(cell) for cell in node.cells]}


def cleaned(cell: dict[str, Any]) -> dict[str, Any]:
    """Return an executed cell as it is kept: without times, its pictures small, its texts as lines."""
    kept = {name: cell[name] for name in ("cell_type", "id", "source")} | {"metadata": {}}
    kept["source"] = lines(kept["source"])
    if cell["cell_type"] == "code":
        kept |= {"execution_count": cell["execution_count"], "outputs": [output(one) for one in cell["outputs"]]}
    return kept


def output(one: dict[str, Any]) -> dict[str, Any]:
    """Return one output as it is kept. ``ValueError`` for warnings and for paths of this machine."""
    if one.get("name") == "stderr" or str(ROOT) in json.dumps(one):
        raise ValueError(f"an output must be free of warnings and of this machine's paths, got {json.dumps(one)[:400]}")
    if "data" not in one:
        return dict(one) | {"text": lines(one["text"])}
    data = {kind: small(part) if kind == "image/png" else lines(part) for kind, part in one["data"].items()}
    return dict(one) | {"data": data, "metadata": {}}


def small(picture: str) -> str:
    """Return a PNG in base64 with at most `COLOURS` colours, a third of its size."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    out = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, format="png", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")


def written(found: dict[str, Any]) -> str:
    """Return a notebook as its file holds it."""
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def committed(name: str) -> dict[str, Any]:
    """Return the notebook that is committed."""
    found: dict[str, Any] = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--check", action="store_true", help="execute, compare, and write nothing")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"a notebook must be one of {', '.join(NAMES)}, got {unknown[0]!r}")
    stale = [name for name in given.names if given.check and sources(committed(name)) != sources(notebook(name))]
    for name in given.names:
        found = execute(notebook(name))
        if not given.check:
            (NOTEBOOKS / f"{name}.ipynb").write_text(written(found), encoding="utf-8")
        print(f"{name}: {len(found['cells'])} cells, {len(written(found)) / 1000:.0f} kB")
    for name in stale:
        print(f"error: docs/notebooks/{name}.ipynb isn't what its text says: run scripts/build_notebooks.py {name}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

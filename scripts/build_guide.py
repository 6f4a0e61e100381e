"""Run the guide's documents, and write what they print and draw back into them.

    python scripts/build_guide.py [docs/guide/induction.md …]

A document is Markdown whose ``python`` blocks run one after another in one namespace. The output of a block is written
into the ``text`` block after it, and its pictures into ``figures/`` beside the document. Assertions in the documents
say what must hold for any weights; the numbers are those of the bundled model at the time of building.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parent.parent / "docs" / "guide"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def run_document(path: Path, folder: Path) -> str:
    """The document with fresh outputs; figures go into ``folder/figures``."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    namespace: dict[str, Any] = {"__name__": path.stem}

    def run(match: re.Match[str]) -> str:
        code, printed = match.group(1), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(path), "exec"), namespace)
        said = "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())
        output = f"\n```text\n{said}```\n" if said else ""
        return f"```python\n{code}```\n{output}"

    before = Path.cwd()
    os.chdir(folder)
    try:
        return BLOCK.sub(run, path.read_text(encoding="utf-8"))
    finally:
        os.chdir(before)


def main(names: list[str]) -> None:
    for path in [Path(name).resolve() for name in names] or sorted(GUIDE.glob("*.md")):
        path.write_text(run_document(path, path.parent), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Write the map in CONTRIBUTING.md: one line for every file, taken from the start of its docstring.

python scripts/write_map.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map, written by scripts/write_map.py -->\n", "<!-- end of map -->\n"
# What is drawn, of folders and in this order: a folder's own files stand under its name, its folders below.
PLACES = {"gpt2_np": "*.py", "decoders": "*.py", "scripts": "*.py", "tests": "*.py", "docs": "*.md"}


def files(root: Path = ROOT) -> Iterator[tuple[str, list[Path]]]:
    """(a folder, its files that the map names), the folders in the order of `PLACES` and of their paths."""
    for place, pattern in PLACES.items():
        found = sorted(path for path in (root / place).rglob(pattern) if "__pycache__" not in path.parts)
        for folder in sorted({path.parent for path in found}):
            yield folder.relative_to(root).as_posix(), [path for path in found if path.parent == folder]


def said(path: Path) -> str:
    """Return a file's description in one line: the first paragraph of its docstring, or a page's heading.

    ``ValueError`` for a file that says nothing.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        told = heading[1] if heading else ""
    else:
        told = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    if not told:
        raise ValueError(f"{path} must begin with a line that says what it is")
    return " ".join(told.replace("``", "`").replace("<", "&lt;").split())


def composed(root: Path = ROOT) -> str:
    """The map: a folded list for each folder, whose title is what the folder's ``__init__.py`` says."""
    lists = []
    for folder, paths in files(root):
        title, lines = f"<code>{folder}/</code>", []
        for path in paths:
            if path.name == "__init__.py":
                title += ": " + re.sub(r"`([^`]+)`", r"<code>\1</code>", said(path))
            else:
                lines.append(f"- [`{path.name}`]({path.relative_to(root).as_posix()}): {said(path)}\n")
        lists.append(f"<details><summary>{title}</summary>\n\n{''.join(lines)}\n</details>\n\n" if lines else "")
    return "".join(lists)


def written(text: str, root: Path = ROOT) -> str:
    """CONTRIBUTING.md's text with the map as it should be now."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{composed(root)}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

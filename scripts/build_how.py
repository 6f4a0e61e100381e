"""Write the code that docs/how explains into its pages, from the source files.

    python scripts/build_how.py

A comment ``<!-- source: gpt2_np/model/ops.py layer_norm centred -->`` stands above a block of Python, which is replaced
by the source of these functions in that file. A test checks that the pages are up to date.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "how"
SOURCE = re.compile(r"^(<!-- source: (\S+) ([\w ]+) -->\n)(?:```python\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def source(path: Path, names: list[str]) -> str:
    """The text of some functions and classes of a file, one below the other. ``LookupError`` names a missing one."""
    text = path.read_text(encoding="utf-8")
    nodes = {node.name: node for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    lines, parts = text.splitlines(), []
    for name in names:
        if name not in nodes:
            raise LookupError(f"{path.name} has no {name}: what is it called now?")
        node = nodes[name]
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        parts.append("\n".join(lines[first - 1 : node.end_lineno]))
    return "\n\n\n".join(parts)


def written(page: str) -> str:
    """A page with the code that its comments name."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}```python\n{source(ROOT / found[2], found[3].split())}\n```\n"

    return SOURCE.sub(block, page)


def own_blocks(page: str) -> list[str]:
    """The page's other blocks of Python, which run one behind the other."""
    rest = SOURCE.sub("", written(page))
    return re.findall(r"```python\n(.*?)```", rest, re.DOTALL)


def main() -> None:
    """Write the pages."""
    for path in sorted(FOLDER.glob("*.md")):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()

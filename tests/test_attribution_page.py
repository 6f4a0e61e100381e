"""The page on attribution does what it says, and its tables are there."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "attribution.md"


def test_every_block_of_the_page_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 5
    defined: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), defined)
    tables = re.search(r"<!-- tables -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert tables is not None
    for method in ("atp", "relp", "eap-ig"):
        assert f"| {method} |" in tables[1]

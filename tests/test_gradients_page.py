"""The page that reads the backward pass aloud does what it says: every step equals `backward`'s."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "gradients.md"


def test_every_step_of_the_page_is_backward_s() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 8
    defined: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), defined)

"""The page about training does what it says: its commands and its code run, in its order, only shorter."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpt2_np import GPT2
from gpt2_np.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
# What a test makes smaller, and nothing else: each must stand on the page.
SHORTER = {
    "--steps 200 --context 128 --batch-size 8": "--steps 2 --context 16 --batch-size 2 --sample-tokens 2",
    "--lora-rank 8 --steps 200": "--lora-rank 8 --steps 2 --context 16 --batch-size 2 --sample-tokens 2",
    "steps=200": "steps=2, context=16, batch_size=2, sample_tokens=2",
    "range(200)": "range(2)",
    "step, 8, 128": "step, 2, 16",
}


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = "It was a long way to the castle, and the king was old. "
    Path("book.txt").write_text("\n<|endoftext|>\n".join([20 * sentence, 20 * f"Then {sentence}"]))
    page = PAGE.read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert long in page, long
        page = page.replace(long, short)
    blocks = re.findall(r"```(python|sh)\n(.*?)```", page, re.DOTALL)
    # A command must come before the code that reads what it wrote.
    assert [kind for kind, _ in blocks] == ["sh", "python", "sh", "python"]
    defined: dict[str, Any] = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), defined)
            continue
        for command in block.splitlines():
            program, *arguments = shlex.split(command, comments=True)
            assert program == "gpt2-np"
            main(arguments)
    assert capsys.readouterr().out.strip()
    loaded = GPT2.from_pretrained(tmp_path / "runs" / "mine")
    assert (loaded([1, 2, 3]) == defined["model"]([1, 2, 3])).all()
    base = GPT2.from_pretrained()([1, 2, 3])
    for name in ("model", "adapted", "apart"):
        assert defined[name]([1, 2, 3]).shape == base.shape
        assert not (defined[name]([1, 2, 3]) == base).all(), name

"""The page about corpora does what it says: its commands and its code run, in its order."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpt2_np.cli import main

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = Path(__file__).parent.parent / "docs" / "corpora.md"
BLOCKS = re.findall(r"^```(python|sh)( ray)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
TEXTS = [f"The king had {number} sons, and the fox ran to the river." for number in range(6)]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, texts in (("books", TEXTS[:4]), ("more", TEXTS[4:])):
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps({'id': text[:14], 'text': text})}\n" for text in texts))
    for name in ("prompts", "a", "b"):
        Path(f"{name}.txt").write_text("The king was old.\nThe sea was calm.\n")


def run(blocks: list[tuple[str, str]]) -> None:
    defined: dict[str, Any] = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), defined)
            continue
        for command in block.splitlines():
            program, *arguments = shlex.split(command, comments=True)
            if program != "pip":
                assert program == "gpt2-np"
                main(arguments)


def test_what_needs_no_ray_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run([(kind, block) for kind, ray, block in BLOCKS if not ray])
    shown = capsys.readouterr().out
    assert "scores: 4 rows in 1 shard, 1 of them new" in shown
    assert "all-scores: 6 rows of 2 parts (score)" in shown
    assert "explained variance" in shown
    assert "6 rows, " in shown


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_what_needs_ray_runs(capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray isn't installed: pip install 'gpt2-np[ray]'")
    ((_, block),) = [(kind, block) for kind, ray, block in BLOCKS if ray]
    run([("sh", "\n".join(block.splitlines()[:2]))])  # no cluster was started for the last command
    assert "scores-by-ray: 4 rows in 1 shard, 1 of them new" in capsys.readouterr().out

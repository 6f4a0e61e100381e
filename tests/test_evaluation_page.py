"""The page about evaluation does what it says: its commands and its code run, in its order."""

from __future__ import annotations

import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpt2_np.cli import main

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "evaluate.md"
BLOCKS = re.findall(
    r"^```(python|sh)( harness)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
# Commands that a test can't run: they install, or fetch weights and data.
FETCHING = ("pip install", "--model gpt2 ")


def run(blocks: list[tuple[str, str]]) -> None:
    defined: dict[str, Any] = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), defined)
            continue
        for command in block.splitlines():
            if any(part in f"{command} " for part in FETCHING):
                continue
            program, *arguments = shlex.split(command, comments=True)
            if program == "python":
                runpy.run_path(str(ROOT / arguments[0]))["write"](Path(arguments[1]))
            else:
                assert program == "gpt2-np"
                main(arguments)


def test_what_needs_no_harness_runs(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was a long way to the castle, and the king was old. " * 3)
    plain = [(kind, block) for kind, harness, block in BLOCKS if not harness]
    assert [kind for kind, _ in plain] == ["sh", "python", "sh"]
    run(plain)
    shown = capsys.readouterr().out
    assert "bfloat16" in shown
    assert "the same top token" in shown


@pytest.mark.filterwarnings("ignore")  # of the harness and its data sets
def test_what_needs_the_harness_runs(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("lm_eval") is None:
        pytest.skip("lm_eval isn't installed: .ci/evaluate runs this in an environment with it")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    run([(kind, block) for kind, harness, block in BLOCKS if harness])
    shown = capsys.readouterr().out
    assert "tale_endings" in shown
    assert '"task": "tale_words"' in shown
    assert Path("answers.db").is_file()

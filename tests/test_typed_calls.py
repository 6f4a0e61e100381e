"""What type checkers say of calls as people type them: the options are known, and what comes out is too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CALLS = ROOT / "tests" / "typed_calls.py"
REFUSED = [number for number, line in enumerate(CALLS.read_text().splitlines(), 1) if line.endswith("# refused")]


def test_there_are_wrong_calls_to_refuse() -> None:
    assert len(REFUSED) >= 20


def test_mypy(tmp_path: Path) -> None:
    if find_spec("mypy") is None:
        pytest.skip("mypy isn't installed: pip install '.[dev]'")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--config-file="]
    command += ["--follow-imports=silent", "--ignore-missing-imports", "--python-version=3.11", str(CALLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MYPYPATH": str(ROOT)})
    lines = re.findall(r"^\S*typed_calls\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert sorted({int(number) for number, _ in lines}) == REFUSED, done.stdout


def test_pyright() -> None:
    pyright = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if pyright is None:
        pytest.skip("pyright isn't installed: pip install '.[dev]'")
    if subprocess.run([pyright, "--version"], capture_output=True).returncode:
        pytest.skip("pyright can't fetch its own program, which it takes from the npm registry when it first runs")
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, str(CALLS)]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    errors = [one for one in found["generalDiagnostics"] if one["severity"] == "error"]
    assert all(Path(one["file"]) == CALLS for one in errors), errors
    assert sorted({one["range"]["start"]["line"] + 1 for one in errors}) == REFUSED, errors

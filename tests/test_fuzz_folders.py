"""Broken model folders: some in every run, 20,000 by ``pytest -m fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_folders import run


def test_some_broken_folders_load_or_are_refused_in_one_line(tmp_path: Path) -> None:
    faults, kinds = run(0, 300, tmp_path / "model")
    assert faults == []
    assert len(kinds) > 40, "hardly anything was broken"
    assert kinds["sound"] > 30, "hardly anything was left sound"


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, 20_000, 1_000))
def test_twenty_thousand_broken_folders_load_or_are_refused_in_one_line(first: int, tmp_path: Path) -> None:
    faults, _ = run(first, 1_000, tmp_path / "model")
    assert faults == []

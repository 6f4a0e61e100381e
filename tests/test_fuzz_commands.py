"""Command lines, streams and environments at random: some in every run, 2,000 by ``pytest -m fuzz``."""

from __future__ import annotations

import pytest
from fuzz_commands import run


def test_some_command_lines_work_or_are_refused_in_one_line() -> None:
    faults, kinds = run(0, 60)
    assert faults == []
    assert len(kinds) > 15, "hardly anything was tried"
    assert sum(times for kind, times in kinds.items() if kind.startswith("0 ")) > 5, "hardly anything worked"


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, 2_000, 100))
def test_two_thousand_command_lines_work_or_are_refused(first: int) -> None:
    faults, _ = run(first, 100)
    assert faults == []

"""Sets of options: some in every run, 20,000 by ``pytest -m fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_options import run

from gpt2_np import GPT2


@pytest.fixture(scope="module")
def model(small: Path) -> GPT2:
    return GPT2.from_pretrained(small, backend="numpy")


def test_some_sets_of_options_write_sound_text_or_are_refused_in_one_line(model: GPT2) -> None:
    faults, kinds = run(0, 300, model)
    assert faults == []
    assert len(kinds) > 60, "hardly anything was refused"
    assert kinds["sound"] > 60, "hardly anything was sound"


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, 20_000, 1_000))
def test_twenty_thousand_sets_of_options_write_sound_text_or_are_refused(first: int, model: GPT2) -> None:
    faults, _ = run(first, 1_000, model)
    assert faults == []

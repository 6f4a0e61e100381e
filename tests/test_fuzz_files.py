"""Broken bundles, captures, lenses, shards and corpora: some in every run, 5,000 by ``pytest -m fuzz``."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")

from fuzz_files import KINDS, run


def test_some_broken_files_are_read_or_refused_in_one_line() -> None:
    faults, kinds = run(0, 52)
    assert faults == []
    assert {kind.split(":")[0] for kind in kinds} == set(KINDS)
    assert len(kinds) > 25, "hardly anything was broken"


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, 5_000, 250))
def test_five_thousand_broken_files_are_read_or_refused_in_one_line(first: int) -> None:
    faults, _ = run(first, 250)
    assert faults == []

"""The page about determinism: what it calls the same bits is, and what it was measured by still measures it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import measure_determinism as script  # noqa: E402
from determinism import answers, trained  # noqa: E402
from determinism.compare import NOTHING, SAME, UNMEASURED, difference, worst  # noqa: E402

PAGE = (ROOT / "docs" / "determinism.md").read_text(encoding="utf-8")


def table(part: str) -> dict[str, list[str]]:
    """What varies → the cells of its row."""
    (text,) = re.findall(rf"<!-- {part} -->\n(.*?)<!-- end of {part} -->", PAGE, re.DOTALL)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {first: rest for first, *rest in rows}


# A row that is to be measured still says so; what it will say is held to the same words.
WRITING, TRAINING = table("writing"), table("training")


def test_every_row_and_column_was_measured() -> None:
    head, *rows = WRITING
    assert head == "what varies"
    assert WRITING[head] == list(map(script.title, answers.KINDS))
    assert rows == [*answers.WITHIN, *script.PROCESSES, *script.BESIDE]
    head, *rows = TRAINING
    assert TRAINING[head] == list(map(script.title, trained.KINDS))
    assert rows[:-1] == [*trained.WITHIN, *script.TRAINING_PROCESSES]


def test_what_the_page_says_in_words() -> None:
    kernels = [column for column, kind in enumerate(answers.KINDS) if kind[0] != "float64" and kind[1] == "numba"]
    for row in [*list(answers.WITHIN)[:5], *list(script.PROCESSES)[:2]]:
        assert {WRITING[row][column] for column in kernels} <= {SAME, UNMEASURED}, row
    for row in ("the same call again", "four of Python's threads at once", "another process; four at once"):
        assert set(WRITING[row]) <= {SAME, UNMEASURED}, row
    for row in ("the same steps again", "a run that was ended in the middle and resumed"):
        assert set(TRAINING[row]) <= {SAME, UNMEASURED}, row


@pytest.mark.parametrize("row", answers.WITHIN)
@pytest.mark.parametrize("column", [0, 2], ids=["float32", "int8"])
def test_what_is_called_the_same_bits_is(row: str, column: int) -> None:
    found = answers.WITHIN[row](answers.load(answers.KINDS[column]), 8)
    assert found.same or WRITING[row][column] not in (SAME, NOTHING), f"{row}: {found}"


BY_BLAS = "the rest of the batch: a row's gradients at a name"


@pytest.mark.parametrize("row", trained.WITHIN)
def test_what_is_called_the_same_bits_in_training_is(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "STEPS", 1)
    found = trained.WITHIN[row](trained.load(trained.KINDS[0]))
    if row == BY_BLAS:  # some of BLAS's kernels take an order that the shape of the whole batch decides
        assert found.largest < 1e-5
        return
    assert found.same or TRAINING[row][0] not in (SAME, NOTHING), f"{row}: {found}"


def test_differences_are_seen() -> None:
    one = {"logits": np.array([1.0, 2.0]), "text a": np.array([1, 2, 3]), "logprobs a": np.array([0.5, 0.5, 0.5])}
    assert str(difference(one, dict(one))) == SAME
    assert str(difference(one, one | {"logits": np.array([1.0, 2.5])})) == "5.0e-01, same texts"
    parted = one | {"text a": np.array([1, 9]), "logprobs a": np.array([0.25, 7.0])}
    assert str(difference(one, parted)) == "2.5e-01, 1 of 1 texts differ, the first after 1 tokens"
    assert not difference({"x": np.float32([0.0])}, {"x": np.float32([-0.0])}).same
    assert not worst([difference(one, one), difference(one, parted)]).same
    learned = {"gradients": np.array([1.0]), "weights": np.array([0.5, 0.25])}
    other = {"gradients": np.array([1.5]), "weights": np.array([0.5, 0.0])}
    assert str(worst([difference(learned, learned), difference(learned, other)])) == "5.0e-01; weights 2.5e-01"


def test_a_row_is_written_into_its_place() -> None:
    page = f"before\n<!-- writing -->\n{script.empty('writing')}<!-- end of writing -->\nafter\n"
    fresh = script.with_row(script.between(page, "writing"), "an edit that changes nothing", ["x"] * 6)
    lines = script.put(page, "writing", fresh).splitlines()
    assert (lines[0], lines[2][:12], lines[-1]) == ("before", "Measured on ", "after")
    assert "| an edit that changes nothing | x | x | x | x | x | x |" in lines
    assert len(lines) == len(page.splitlines())
    assert sum(UNMEASURED in line for line in lines) == len(WRITING) - 2
    with pytest.raises(SystemExit, match="must have one pair of markers b"):
        script.put("", "b", "new")


def test_a_row_that_there_is_not_is_refused() -> None:
    with pytest.raises(SystemExit, match="writing has rows 1 to 14, got 15"):
        script.measure("writing", [15])
    with pytest.raises(SystemExit, match="measure_determinism"):
        script.main(["reading"])

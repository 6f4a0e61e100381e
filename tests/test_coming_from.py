"""Coming from another library: every line of ours runs, and theirs says the same where it can be run."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "coming-from.md"
TEXT = PAGE.read_text(encoding="utf-8")
NEEDS = {"transformers": "transformers", "TransformerLens": "transformer_lens", "llama.cpp": ""}
SECTIONS = dict(re.findall(r"^## ([\w.]+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


def rows(section: str) -> list[tuple[list[str], list[str], str]]:
    """(their pieces of code, ours, how they compare) of every row of a section's table."""
    found = []
    for line in SECTIONS[section].splitlines():
        if line.startswith("| ") and not line.endswith("| compared |"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            assert len(cells) == 3, line
            theirs, ours = ([one.replace("\\|", "|") for one in re.findall("`([^`]+)`", cell)] for cell in cells[:2])
            found.append((theirs, ours, cells[2]))
    return found


def value_of(pieces: list[str], names: dict[str, Any]) -> Any:
    """Run pieces of code one behind the other; the last one's value, None where it is a statement."""
    *first, last = pieces
    for one in first:
        exec(one, names)
    try:
        code = compile(last, "coming-from.md", "eval")
    except SyntaxError:
        exec(last, names)
        return None
    return eval(code, names)


def as_array(value: Any) -> Any:
    """A number, list or tensor as an array; an axis of one row more or less is no difference."""
    value = value.detach().numpy() if hasattr(value, "detach") else value
    return value if isinstance(value, str) else np.squeeze(np.asarray(value))


def block(section: str) -> str:
    """What a section's other library needs to begin with."""
    (code,) = re.findall(r"```python theirs\n(.*?)```", SECTIONS[section], re.DOTALL)
    return code


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page begins with, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was a long way to the castle, and the king was old.")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], names)
    names["folder"] = str(tmp_path / "model")
    names["model"].save_pretrained(names["folder"])
    return names


def test_the_sections_are_there() -> None:
    assert SECTIONS.keys() == NEEDS.keys()
    for section in NEEDS:
        assert len(rows(section)) > 15
        for theirs, ours, how in rows(section):
            assert how in {"equal", "to rounding", "ours", ""}
            assert ours
            assert theirs or how == "ours"
    unrun = [ours[0].split()[0] for section in NEEDS for _, ours, how in rows(section) if not how]
    assert unrun == ["gpt2-np", "python"]  # a server and a benchmark, which have tests of their own


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize("section", ["transformers", "TransformerLens"])
def test_our_lines_run_and_theirs_agree(section: str, ours: dict[str, Any]) -> None:
    beside = all(map(find_spec, ("torch", NEEDS[section])))
    theirs: dict[str, Any] = {"ids": ours["ids"], "text": ours["text"], "folder": ours["folder"]}
    exec("from gpt2_np.gradients import cross_entropy", ours)
    if beside:
        if section != "transformers":
            import torch

            theirs["torch"] = torch
        exec(block(section), theirs)
    for their_code, our_code, how in rows(section):
        if not our_code:
            continue
        mine = value_of(our_code, ours)
        if how == "ours" or not beside:
            continue
        expected, found = as_array(value_of(their_code, theirs)), as_array(mine)
        if how == "equal":
            np.testing.assert_array_equal(found, expected, err_msg=our_code[-1])
        else:
            assert found.shape == expected.shape, our_code[-1]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4, err_msg=our_code[-1])


def test_the_lines_for_llama_cpp_run(ours: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llguidance", reason="needs llguidance: pip install 'gpt2-np[constraints]'")
    for _, (code,), how in rows("llama.cpp"):
        if how != "ours":
            continue
        if code.startswith("gpt2-np "):
            main(shlex.split(code)[1:])
            assert capsys.readouterr().out.strip(), code
        else:
            assert len(value_of([code], ours))


def test_the_models_of_the_page_are_those_of_the_package(ours: dict[str, Any]) -> None:
    assert (GPT2.from_pretrained(ours["folder"])(ours["ids"]) == ours["model"](ours["ids"])).all()

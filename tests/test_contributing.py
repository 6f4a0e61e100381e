"""CONTRIBUTING.md keeps its word: its map is up to date, and its search runs. `test_decoding_docs` runs its sampler."""

from __future__ import annotations

import re
import runpy
import sys
import types
from pathlib import Path

import pytest
from golden_searches import model

from decoders import Options, generate
from decoders.generate import prepared

PROMPTS = [[4, 5, 6], [7, 8]]
ROOT = Path(__file__).parent.parent
MAP = runpy.run_path(str(ROOT / "scripts" / "write_map.py"))


def test_the_map_names_every_file_by_its_own_words() -> None:
    text = MAP["PAGE"].read_text(encoding="utf-8")
    assert MAP["written"](text) == text, "run python scripts/write_map.py"
    for place in ("gpt2_np", "decoders", "scripts", "tests"):
        for path in (ROOT / place).rglob("*.py"):
            assert path.name == "__init__.py" or f"]({path.relative_to(ROOT).as_posix()})" in text


def test_a_file_that_says_nothing_of_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"silent\.py must begin with a line that says what it is"):
        MAP["said"](tmp_path / "silent.py")
    (tmp_path / "telling.py").write_text('"""What ``x``\nis.\n\nMore."""\n')
    assert MAP["said"](tmp_path / "telling.py") == "What `x` is."


def test_its_search_keeps_the_shortest_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, code = re.findall(r"```python\n(.*?)```", MAP["PAGE"].read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("decoders.searches.shortest_of")
    module.__package__ = "decoders.searches"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, module.__dict__)
    (method,) = module.METHODS
    (trial,) = method.trials.values()

    settings = {"do_sample": True, "seed": 1, "max_new_tokens": 8, "eos_token_id": [3, 5, 7, 9]}
    number = trial["shortest_of"]
    drawn = generate(model(1).start(), PROMPTS, Options(**settings, num_return_sequences=number))
    task = prepared(model(1).start(), PROMPTS, Options(**settings), 64, (), None)
    found = method.run(task, shortest_of=number)
    lengths = [[len(one.ids) for one in drawn[at : at + number]] for at in (0, number)]
    assert any(len(set(some)) > 1 for some in lengths)
    assert [len(one.ids) for one in found] == [min(some) for some in lengths]

"""The page about decoding shows every method, as the methods' statements say, and the cost table leaves nothing out."""

from __future__ import annotations

import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from decoders import methods
from decoders.base.method import Method, Place
from gpt2_np import GPT2

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "decoding" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
METHODS = [method for method in methods.every() if method.make or method.stop or method.run]
SHOWN = [entry for method in METHODS for entry in method.documentation]


def part(method: Method) -> str:
    """The part of the page that a method belongs to."""
    if method.run is not None:
        return "Strategies"
    return "Warpers" if method.only == "sampling" else "Processors"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_has_its_entry_or_its_line(method: Method) -> None:
    (body,) = re.findall(rf"^## {part(method)}: .*?(?=^## )", TEXT, re.DOTALL | re.MULTILINE)
    for entry in method.documentation:
        found = re.findall(rf"^### {re.escape(entry.title)}\n.*?(?=^##)", body + "##", re.DOTALL | re.MULTILINE)
        assert len(found) == 1, f"{entry.title} is missing: run scripts/build_decoding_page.py"
        for said in (entry.what, f"$${entry.formula}$$", entry.source, f"**When:** {entry.when}"):
            assert said in found[0]
        if method.make is not None:
            assert (f"![{entry.title}](figures/" in found[0]) == entry.picture
    if not method.documentation:
        option = methods.option(method.askers[0])
        assert option.help, f"{method.name} has no page: its first option needs a help, which stands there instead"
        line = f"\n- `{option.name}`: {option.help}\n"
        assert line in body, f"{option.name} is missing: run scripts/build_decoding_page.py"


def test_the_page_holds_no_entry_but_these_and_every_picture() -> None:
    titles = [title for title in re.findall(r"^### (.*)$", TEXT, re.MULTILINE) if not title.startswith("Other ")]
    assert sorted(titles) == sorted(entry.title for entry in SHOWN)
    assert f"\nThis page shows {len(SHOWN)} options and strategies" in TEXT
    pictures = re.findall(r"!\[[^]]+\]\((figures/[^)]+\.png)\)", TEXT)
    assert len(pictures) == len(set(pictures)) > 25
    assert {PAGE.parent / name for name in pictures} == set((PAGE.parent / "figures").iterdir())
    assert sum((PAGE.parent / name).stat().st_size for name in pictures) < 1_500_000
    for name in ("constraints", "speculation"):
        assert f"<!-- {name} -->" in TEXT
        assert f"<!-- end of {name} -->" in TEXT


def test_the_calls_on_the_page_write_what_it_shows() -> None:
    model = GPT2.from_pretrained()
    found = re.findall(r"```python\n(model\.generate\(.*\))\n```\n\n> (.*) \*\*(.*)\*\*", TEXT)
    assert len(found) == len(SHOWN)
    for call, prompt, written in found[::4]:
        out = eval(call, {"model": model})
        assert out.prompt == prompt
        assert " ".join(out.text.split()) == written, call


def test_every_processor_is_in_the_cost_table() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "bench_decoders.py"))
    assert script["missing"]() == []
    measured = [row.name for row in script["rows"](1)]
    table = (PAGE.parent / "cost.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| [\d.]+ \| [\d.]+ \|", table, re.MULTILINE)
    assert rows == measured, "run scripts/bench_decoders.py --write"
    assert "**none**" not in table


def test_the_sampler_of_the_contributors_guide_works() -> None:
    code, _ = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("decoders.processors.max_gap")
    module.__package__ = "decoders.processors"
    sys.modules[module.__name__] = module  # where dataclasses look
    try:
        exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]
    (method,) = module.METHODS
    processor = method.make(Place(0, 1, 10, (), 1, ()), **method.documentation[0].example)
    out = processor([np.array([0])], np.array([[1.0, 3.0, 0.5, 4.0]], np.float32))
    assert out.tolist() == [[-np.inf, 3.0, -np.inf, 4.0]]
    with pytest.raises(ValueError, match="max_gap must be above 0, got 0"):
        module.MaxGap(0)

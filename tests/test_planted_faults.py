"""The parity tool catches planted faults, down to a size, and nothing where nothing is planted."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "planted_faults.py"))


def test_what_is_planted_is_caught_down_to_a_size(small: Path) -> None:
    ours, prompts = SCRIPT["references"](str(small))
    for fault, plant in SCRIPT["FAULTS"].items():
        by = [SCRIPT["caught"](ours.with_params(plant(ours.params, size)), prompts) for size in (1e-2, 1e-3, 0.0)]
        assert by[0] == "tensor", fault
        assert by[1] or fault == "one weight of an MLP", fault
        assert by[2] == "", fault

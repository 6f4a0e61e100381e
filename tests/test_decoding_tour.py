"""The tour of decoding, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "decoding_tour.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def test_every_call_of_the_notebook_and_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("--length", "8", "--plots", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for expected in (
        'get_next_token_logits("The capital of France is")',
        "shape (4096,)",
        "10. ",
        'greedy_decode("Once upon a time")',
        "The two are the same",
        'temperature_decode("The meaning of life is"',
        *(f"temperature {t}" for t in (0.3, 0.7, 1.0, 1.5)),
        'top_k_decode("The meaning of life is"',
        'top_p_decode("The secret to happiness is"',
        *(f"p = {p}" for p in (0.5, 0.8, 0.95, 0.99)),
        'beam_search_decode("The quick brown fox", num_beams=3)',
    ):
        assert expected in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beams.png", "nucleus.png", "temperature.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_a_folder_without_a_tokenizer_is_one_line(small: Path) -> None:
    done = run("--model", str(small))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {small} holds no tokenizer")
    assert done.stderr.count("\n") == 1

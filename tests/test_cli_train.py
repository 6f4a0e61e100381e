"""``gpt2-np train``: one line for a mistake, a model's folder at the end, and how to go on after Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt2_np import GPT2, training
from gpt2_np.cli import main, progress
from gpt2_np.cli import train as cli_train
from gpt2_np.cli.progress import NoBar
from gpt2_np.engine.kernels import code_cache
from gpt2_np.training import pace

SMALL = ["--steps", "2", "--batch-size", "1", "--context", "8", "--sample-tokens", "0", "--backend", "numpy"]
SHAPE = ["--n-layer", "1", "--n-embd", "8", "--n-head", "2", "--n-positions", "16"]


def run(*arguments: Any) -> int:
    """The exit status."""
    try:
        main(["train", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of text."""
    (tmp_path / "a.txt").write_text("The fox met the crow by the well. " * 20)
    return tmp_path / "a.txt"


def test_a_new_model_is_trained_and_the_run_is_at_its_end(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [text, "--out", tmp_path / "run", *SMALL, *SHAPE]
    assert run(*command) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 2/2: loss " in err
    assert err.endswith("run holds the model; see its loss.csv\n")
    model = GPT2.from_pretrained(tmp_path / "run")
    assert (model.config.n_layer, model.config.n_embd, model.config.n_positions) == (1, 8, 16)
    assert run(*command) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'run'} is in use; go on with the run there (--resume, resume=True), "
        "or choose another folder\n"
    )
    assert run(*command, "--resume") == 0
    assert capsys.readouterr().err == f"{tmp_path / 'run'} is at its end already\n"
    assert run(*command, "--resume", "--seed", "3") == 2
    assert capsys.readouterr().err == "error: --resume goes on with seed 0, as the run began; got 3\n"
    assert json.loads((tmp_path / "run/training.json").read_text())["settings"]["context"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["{text}", "--context", "5000"], "context must be at most the model's 16 positions, got 5000"),
        (["{text}", "--learning-rate", "-1"], "learning_rate must be above 0, got -1.0"),
        (["{text}", "--lr-scheduler-type", "up"], "schedule must be one of constant, "),
        (["{text}", "--n-embd", "9"], "n_embd must be a multiple of n_head, got n_embd 9 and n_head 2"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one.replace("{text}", str(text)) for one in arguments]
    assert run(*SMALL, *SHAPE, "--out", tmp_path / "run", *given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_how_to_go_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: Any, **settings: Any) -> None:
        raise training.Stopped(7)

    monkeypatch.setattr(training, "train", stopped)
    monkeypatch.setattr("sys.argv", ["gpt2-np", "train", "a b.txt", "--out", "run"])
    assert run(text, "--out", tmp_path / "run", *SMALL, *SHAPE) == 130
    assert capsys.readouterr().err == (
        f"saved step 7 in {tmp_path / 'run'}; go on with: gpt2-np train 'a b.txt' --out run --resume\n"
    )


def test_the_bar_says_that_kernels_are_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar(NoBar):
        def set_postfix_str(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(cli_train, "bar", lambda total, unit, bar_format: Bar())
    shown = cli_train.Shown(2)
    code_cache.announce()
    shown.close()
    shown.close()
    code_cache.announce()
    assert said == ["compiling the kernels, this once"]


@pytest.mark.parametrize("kernels", [0, 2])
def test_other_commands_say_so_in_a_line_of_their_own(
    kernels: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Implementation:
        @property
        def step(self) -> None:
            for _ in range(kernels):
                code_cache.announce()

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress.compiling(SimpleNamespace(backend="numba", implementation=Implementation()))
    code_cache.announce()
    assert capsys.readouterr().err == ("compiling the kernels, this once … \r\033[K" if kernels else "")


def test_the_first_step_counts_for_no_other_step_s_speed(text: Path, tmp_path: Path) -> None:
    reports: list[training.Report] = []
    clock = iter([0, 90, 100, 110])  # before the first step, and after each
    settings: dict[str, Any] = {"steps": 3, "context": 8, "batch_size": 2, "sample_tokens": 0, "held_out": 0.0}
    model = GPT2.from_pretrained(backend="numpy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        training.train(model, [text], tmp_path / "run", report=reports.append, **settings)
    assert [one.tokens_per_second for one in reports] == [16 / 90, 1.6, 1.6]
    assert [one.seconds_left for one in reports] == [180, 10, 0]

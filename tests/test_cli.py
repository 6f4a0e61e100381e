"""The command line as a user meets it: what is printed, what is refused, and with which exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gpt2_np.cli import cli

COMMAND = [sys.executable, "-c", "from gpt2_np.cli import main; main()"]


def run(*arguments: str, status: int = 0, **settings) -> subprocess.CompletedProcess:
    settings.setdefault("env", os.environ | {"HF_HUB_OFFLINE": "1"})
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **settings)
    assert done.returncode == status, done.stderr
    return done


def refused(*arguments: str) -> str:
    """The one line that a mistake gets."""
    done = run(*arguments, status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_generate_writes_the_prompt_and_its_continuation() -> None:
    out = run("generate", "Once upon a time", "-n", "20").stdout
    assert out.startswith("Once upon a time")
    assert len(out) > 40
    assert run("generate", "Once upon a time", "-n", "20").stdout == out


def test_json_is_one_object_a_line_and_nothing_else() -> None:
    done = run("generate", "The king", "-n", "6", "--json", "--num-beams", "3", "--num-return-sequences", "2")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(objects) == 2
    for one in objects:
        assert set(one) == {"prompt", "text", "ids", "logprobs", "finish_reason", "score"}
        assert (one["prompt"], len(one["ids"]), one["finish_reason"]) == ("The king", 6, "length")
    single = json.loads(run("generate", "The king", "-n", "6", "--json").stdout)
    assert set(single) == {"prompt", "text", "ids", "logprobs", "finish_reason"}
    assert done.stderr == ""


def test_a_seed_gives_the_same_text() -> None:
    arguments = ["generate", "The sea", "-n", "20", "--do-sample", "--temperature", "0.9", "--top-p", "0.95"]
    assert run(*arguments, "--seed", "5").stdout == run(*arguments, "--seed", "5").stdout
    assert run(*arguments, "--seed", "5").stdout != run(*arguments, "--seed", "6").stdout


def test_draws_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "uniforms"
    file.write_text("0.1 0.5\n0.9 0.3")
    arguments = ["generate", "The sea", "-n", "4", "--do-sample", "--uniforms", str(file)]
    assert run(*arguments).stdout == run(*arguments).stdout
    assert "uniforms must hold one number a token, got 4" in run(*arguments, "-n", "5", status=2).stderr
    file.write_text("0.1 x")
    assert "must hold numbers only" in refused(*arguments)


def test_a_stop_string_stops() -> None:
    out = run("generate", "Once upon a time", "-n", "200", "--stop", ",").stdout
    assert out.rstrip("\n").count(",") <= 1


def test_logits_table() -> None:
    table = run("logits", "The king", "--top", "3").stdout
    assert len(table.splitlines()) == 2 + 1 + 3
    rows = json.loads(run("logits", "The king", "--top", "4096", "--json").stdout)
    assert len(rows["top"]) == rows["vocabulary"] == 4096
    assert sum(row["probability"] for row in rows["top"]) == pytest.approx(1)
    assert rows["top"][0]["logit"] == rows["max"]


def test_score_of_a_text_a_file_and_standard_input(tmp_path: Path) -> None:
    text = "The old king had three sons. " * 3
    (tmp_path / "text").write_text(text)
    told = json.loads(run("score", text, "--json").stdout)
    assert json.loads(run("score", "--file", str(tmp_path / "text"), "--json").stdout) == told
    assert json.loads(run("score", "--file", "-", "--json", input=text).stdout) == told
    assert told["bytes"] == len(text)
    assert "bits per byte" in run("score", text).stdout


def test_info() -> None:
    told = json.loads(run("info", "--json").stdout)
    assert told["parameters"] > 1e6
    assert Path(told["folder"], "model.safetensors").is_file()
    assert f"{told['parameters']:,} parameters" in run("info").stdout


def test_every_command_and_option_has_help_in_a_sentence() -> None:
    def every(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
        context = click.Context(command, parent, name)
        yield name, (command.help or "").split("\n\n")[0]
        for parameter in command.get_params(context):
            shown = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if shown is not None:
                yield f"{name} {shown[0]}", shown[1]
        for one in command.list_commands(context) if isinstance(command, click.Group) else ():
            found = command.get_command(context, one)
            assert found is not None
            yield f"{name} {one} in short", found.short_help or ""
            yield from every(found, f"{name} {one}", context)

    says = dict(every(cli, "gpt2-np", None))
    assert len(says) > 400
    silent = [name for name, text in says.items() if not re.match(r"[\w-].*[.\w}!…'\"\])]$", text.strip(), re.DOTALL)]
    assert not silent, silent


def test_help_is_grouped_with_an_example_of_each() -> None:
    text = run("generate", "--help", env=os.environ | {"COLUMNS": "80"}).stdout
    assert not re.search(r"^ +PROMPT$", text, re.MULTILINE)  # an argument is no option
    assert "--do-sample --profile llama.cpp --xtc-probability 0.5\n" in text  # whole, however narrow the terminal
    for group in ("Length:", "Sampling:", "Beam search:", "Rules:", "Output:", "Model:"):
        assert group in text
    headings = [line for line in text.splitlines() if re.fullmatch(r"\S.*:", line) and line != "Options:"]
    assert text.count("Example: gpt2-np generate") == len(headings)
    assert run().stdout.startswith("Usage: gpt2-np")
    assert "0." in run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "Missing argument 'PROMPT'"),
        (["generate", "x", "--bogus"], "No such option"),
        (["sing"], "No such command 'sing'"),
        (["generate", "x", "-n", "many"], "'many' is not a valid integer"),
        (["generate", "x", "-n", "0"], "max_new_tokens must be a whole number of at least 1, got 0"),
        (["generate", "x", "--do-sample", "--temperature", "0"], "temperature must be above 0, got 0.0"),
        (["generate", "x", "--temperature", "0.5"], "temperature acts only when sampling; give do_sample too"),
        (["generate", "x", "--do-sample", "--top-p", "0"], "top_p must be in (0, 1], got 0.0"),
        (["generate", "x", "--do-sample", "--top-k", "-1"], "top_k must be a whole number of at least 1, got -1"),
        (["generate", "x", "--num-beams", "5000"], "num_beams must be at most the vocabulary's size (4096), got 5000"),
        (["generate", "x", "--num-beams", "2", "--early-stopping", "soon"], "must be true, false or never, got 'soon'"),
        (["generate", "x " * 600], "the prompt must have at most 512 tokens, the model's context, got"),
        (["generate", "x", "--model", "/nowhere"], "there is no folder '/nowhere'"),
        (["generate", "x", "--model", "gpt2"], "openai-community/gpt2 is not in the cache"),
        (["generate", "x", "--device", "cuda"], "--device is for --backend torch"),
        (["generate", "x", "--dtype", "float8"], "'float8' is not one of"),
        (["score"], "give either a TEXT or --file"),
        (["score", "x", "--file", "y"], "give either a TEXT or --file"),
        (["score", "--file", "/nowhere"], "/nowhere: No such file or directory"),
        (["score", ""], "there is nothing to score"),
        (["score", "x", "--stride", "0"], "stride must be a whole number between 1 and 512, got 0"),
        (["logits", "x", "--top", "0"], "0 is not in the range x>=1"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert message in refused(*arguments)


def test_bad_files_are_one_line(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "is not a sound safetensors file" in refused("info", "--model", str(tmp_path / "model"))
    weights.unlink()
    assert "holds no model.safetensors" in refused("info", "--model", str(tmp_path / "model"))
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"anything")
    assert "pickle files are never opened" in refused("info", "--model", str(tmp_path / "model"))
    weights.write_bytes(whole)
    assert "holds no tokenizer" in refused("generate", "x", "--model", str(tmp_path / "model"))
    (tmp_path / "model/config.json").write_text("{")
    assert "config.json is not valid JSON" in refused("info", "--model", str(tmp_path / "model"))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert "must be UTF-8 text; byte 3 is not" in refused("score", "--file", str(tmp_path / "latin"))


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f'{sys.executable} -c "from gpt2_np.cli import main; main()" logits x --top 4096 | head -1',
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("1 token")
    assert done.stderr == ""


def test_ctrl_c_stops_cleanly() -> None:
    arguments = [
        "generate",
        "Once upon a time",
        "-n",
        "400",
        "--model",
        "tales",
        "--backend",
        "numpy",
        "--min-new-tokens",
        "400",
    ]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.read(30)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_ctrl_c_is_as_quiet_while_modules_load() -> None:
    code = (
        "import sys; import gpt2_np.__main__ as command; assert not {'numpy', 'click'} & set(sys.modules)\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted()); command.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "gpt2_np", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpt2-np")


def test_text_streams_to_a_terminal() -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen([*COMMAND, "generate", "Once upon a time", "-n", "60"], stdout=terminal, stderr=terminal)
    os.close(terminal)
    pieces = []
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # the terminal closes with the process
            break
        if not piece:
            break
        pieces.append((time.monotonic(), piece))
    assert process.wait(timeout=60) == 0
    assert len(pieces) > 5
    text = b"".join(piece for _, piece in pieces).decode()
    assert "Once upon a time" in text


def test_samplers_of_other_engines() -> None:
    arguments = ["generate", "The sea", "-n", "15", "--do-sample", "--seed", "1"]
    plain = run(*arguments).stdout
    for more in (
        ["--profile", "llama.cpp"],
        ["--mirostat", "2", "--mirostat-tau", "2"],
        ["--top-n-sigma", "0.5"],
        ["--temperature", "0.5", "--top-p", "0.5", "--order", "top-p,temperature"],
        ["--dry-multiplier", "3", "--dry-sequence-breaker", "."],
        ["--xtc-probability", "1"],
        ["--guidance-scale", "2", "--negative-prompt", "The king"],
        ["--watermark", '{"bias": 9}'],
    ):
        assert run(*arguments, *more).stdout.startswith("The sea")
    assert run(*arguments, "--profile", "llama.cpp").stdout != plain
    line = refused(*arguments, "--profile", "mlx-lm", "--eta-cutoff", "0.1")
    assert "profile 'mlx-lm' has no eta_cutoff" in line
    assert "must be a JSON object" in refused(*arguments, "--watermark", "[1]")
    assert "order may name" in refused(*arguments, "--order", "topk")

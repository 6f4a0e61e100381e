"""Other people's shells: streams that are closed, full, unread or of a narrow encoding; what a terminal is shown."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_np.cli import main, streams
from gpt2_np.system.errors import MOST, one_line

COMMAND = f"{sys.executable} -m gpt2_np"
LOGITS = f"{COMMAND} logits x --backend numpy --top 4096"


def shell(line: str) -> tuple[int, str, str]:
    """Status, output and errors of a line in a user's shell, where Python keeps what it writes in buffers."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300, env=buffered)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        (f"{LOGITS} | head -1 >&2; exit ${{PIPESTATUS[0]}}", 141, "1 tokens in"),
        (f"{COMMAND} --help | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        (f"{LOGITS} >/dev/full", 1, "error: standard output: No space left on device"),
        (f"{LOGITS} >&-", 1, "error: standard output: Bad file descriptor"),
        (f"{COMMAND} generate - --backend numpy <&-", 2, "error: standard input: Bad file descriptor"),
        (f"{COMMAND} generate x --top-p 3 --backend numpy 2>&-", 2, ""),
        (f"{COMMAND} generate x --top-p 3 --backend numpy 2>/dev/full", 2, ""),
        (
            f"{COMMAND} generate --prompts <(yes x | head -3) --output /dev/full -n 1 --backend numpy",
            1,
            "/dev/full: No space left",
        ),
    ],
)
def test_streams_that_take_nothing(line: str, status: int, message: str) -> None:
    code, out, err = shell(line)
    assert code == status
    assert out == ""
    assert message in err
    assert err.count("\n") == (message != "")


def written(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> str:
    """What a command prints where standard output has this encoding."""
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        main(list(arguments))
        sys.stdout.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_what_an_encoding_can_t_say_is_degraded(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        return written(monkeypatch, encoding, *arguments)

    numpy = ["--backend", "numpy"]
    assert "%" in run("logits", "🙂", "--top", "1", *numpy)
    assert "bits a byte" in run("choose", "The king sat on his", " throne", " 🙂", *numpy)
    explained = run("generate", "🙂 “a”", "-n", "2", "--no-repeat-ngram-size", "2", "--explain", *numpy)
    assert explained.startswith("? ")
    assert "\n-n (p): n tokens removed" in explained
    assert "parameters in" in run("info", *numpy)
    assert run("inspect", "🙂", "--out", str(tmp_path / "page.html")).strip().endswith("page.html")
    assert "looking" in run("internals", "attention", "🙂\n", "--layer", "0", "--head", "0")
    assert " > " in run("internals", "lens", "🙂 a")
    for arguments in (["logits", "🙂", *numpy], ["generate", "🙂", "-n", "1", *numpy], ["internals", "lens", "🙂"]):
        told = json.loads(run(*arguments, "--json"))  # nothing is lost: what can't be said is escaped
        assert told.get("prompt", "🙂") == "🙂"


def test_utf_8_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, "utf-8", "generate", "🙂", "-n", "1", "--json", "--backend", "numpy")
    assert '"prompt": "🙂"' in out


def test_a_progress_bar_that_can_t_be_shown_is_no_fault() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "gone")

        def flush(self) -> None:
            self.write("")

    forgiving = streams.Forgiving(Broken())
    assert forgiving.write("abc") == 3
    forgiving.flush()
    assert not forgiving.isatty()


# ---- what a terminal is shown --------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    return err


def test_control_characters_are_escaped_and_long_values_cut(capsys, tmp_path: Path) -> None:
    line = refused(capsys, "info", "--model", "/no\x1b[31m\x9b\u202ewhere")
    assert r"/no\x1b[31m\x9b\u202ewhere" in line
    long = refused(capsys, "info", "--model", "/" + "long" * 2500)
    assert len(long) < MOST + 50
    (tmp_path / "config.json").write_text('{"n_layer": "\x7f\\u001b[2J"}')
    assert refused(capsys, "info", "--model", str(tmp_path)).isascii()
    assert one_line("a\n\tb\r\x00c") == r"a b \x00c"
    assert one_line("“é” 🙂 中") == "“é” 🙂 中"


def test_hints_and_suggestions(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "goes after --: gpt2-np generate --" in refused(capsys, "generate", "-5 degrees")
    assert "Did you mean 'generate'?" in refused(capsys, "genrate", "x")
    assert "Did you mean 'lens'?" in refused(capsys, "internals", "lenz", "x")
    assert "mean" not in refused(capsys, "sing")
    monkeypatch.setenv("GPT2_NP_MODEL", "/nowhere")
    assert "there is no folder '/nowhere'" in refused(capsys, "generate", "x")
    monkeypatch.setenv("GPT2_NP_DTYPE", "float9")
    assert "GPT2_NP_DTYPE" in refused(capsys, "generate", "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stop", "did you mean 'stop_strings'?"),
        ("temp", "did you mean 'temperature'?"),
        ("topk", "did you mean 'top_k'?"),
        ("max_tokens", "did you mean 'max_new_tokens'?"),
        ("beams", "did you mean 'num_beams'?"),
        ("colour", "there is no option 'colour'"),
        ("n", "there is no option 'n'"),
    ],
)
def test_only_plausible_names_are_suggested(name: str, message: str) -> None:
    from gpt2_np import GPT2

    with pytest.raises(ValueError) as error:
        GPT2.from_pretrained(backend="numpy").generate([1], **{name: 1})
    assert str(error.value).endswith(message)


def test_a_line_s_end_can_be_typed(capsys) -> None:
    arguments = ["generate", "One day", "-n", "60", "--min-new-tokens", "60", "--backend", "numpy", "--json"]
    for typed, text in ((r"\n", "\n"), (r"\t", "\t"), (r"\\n", r"\n"), (r"\x", r"\x")):
        main([*arguments, "--stop", typed, "--stop", ","])
        told = json.loads(capsys.readouterr().out)
        assert text not in told["text"][:-1]
    from gpt2_np.cli.options import Text

    assert Text().convert(r"a\nb\\n\t\x", None, None) == "a\nb\\n\t\\x"


def test_a_shell_can_complete(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("_GPT2_NP_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "gpt2-np generate --tempe")
    monkeypatch.setenv("COMP_CWORD", "2")
    main([])
    assert "plain,--temperature" in capsys.readouterr().out

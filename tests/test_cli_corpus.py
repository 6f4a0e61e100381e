"""``gpt2-np corpus``: what it prints, its exit status, and mistakes in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from gpt2_np.cli import main

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("The king was old.\nA bird sang.\nThe fox ran home.\n")
    Path("b.jsonl").write_text('{"id": 5, "text": "The sea was calm."}\nno json\n')


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) if status else nullcontext() as left:
        main(["corpus", *arguments])
    out, err = capsys.readouterr()
    assert left is None or left.value.code == status, err
    return out, err


def test_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "score", "a.txt", "b.jsonl", "out", "--backend", "numpy", "--shard-rows", "2", status=1)
    lines = out.splitlines()
    assert lines[0] == "out: 5 rows in 3 shards, 3 of them new"
    assert "bits per byte" in lines[1]
    assert lines[2].startswith("1 rows failed, the first, row 4: a line must be a JSON object")
    assert lines[3] == "all of them are in out/_errors.jsonl"
    assert err == ""
    arguments = ["score", "a.txt", "b.jsonl", "out", "--backend", "numpy", "--shard-rows", "2", "--json"]
    found = json.loads(run(capsys, *arguments, status=1)[0])
    assert (found["rows"], found["failed"], found["shards"], found["new_shards"]) == (5, 1, 3, 0)
    assert found["tokens"] > 10


def test_generate_capture_and_merge(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "generate", "a.txt", "texts", "--backend", "numpy", "-n", "2", "--stop", "zz")
    assert out == "texts: 3 rows in 1 shard, 1 of them new\n"
    for name in ("c1", "c2"):
        out, _ = run(capsys, "capture", "a.txt", name, "--names", "blocks.0.resid_post", "--store", "float16")
        assert out.splitlines()[0] == f"{name}: 3 rows in 1 shard, 1 of them new"
    assert run(capsys, "merge", "c1", "c2", "both")[0] == "both: 6 rows of 2 parts (capture)\n"
    found = json.loads(run(capsys, "merge", "c1", "c2", "again", "--json")[0])
    assert found == {"out": "again", "kind": "capture", "parts": 2, "rows": 6}


def test_prompts_are_healed_as_generate_heals_them(capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    Path("p.txt").write_text("The kin\nOnc\n")
    run(capsys, "generate", "p.txt", "healed", "--backend", "numpy", "-n", "3", "--token-healing")
    main(["generate", "--prompts", "p.txt", "--backend", "numpy", "-n", "3", "--token-healing"])
    alone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = pq.read_table("healed").to_pylist()
    for name in ("prompt", "healed", "text", "ids"):
        assert [row[name] for row in rows] == [one[name] for one in alone]
    assert rows[0]["healed"] == "The kings"
    run(capsys, "generate", "p.txt", "plain", "--backend", "numpy", "-n", "3")
    assert pq.read_table("plain")["healed"].null_count == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nowhere.txt", "out"], "nowhere.txt: No such file or directory"),
        (["score", "a.txt"], "Missing argument 'IN...'"),
        (["score", "a.txt", "out", "--actors", "2"], "actors, cores and address are for engine 'ray'"),
        (["generate", "a.txt", "out", "--top-p", "3", "--do-sample"], "top_p must be in (0, 1], got 3.0"),
        (["generate", "a.txt", "out", "--assistant-dtype", "int8"], "--assistant-dtype needs --assistant-model"),
        (["capture", "a.txt", "out", "--names", "nothing"], "no activation is named 'nothing'"),
        (["capture", "a.txt", "out", "--names", "embed", "--length", "1"], "length must be between 2 and"),
        (["score", "a.txt", "/proc/out"], "/proc/out: No such file or directory"),
        (["merge", "a.txt", "out"], "a.txt is neither a folder of shards or captures, nor a lens"),
        (["scare", "a.txt", "out"], "No such command 'scare'"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, *arguments, status=2)
    assert message in err
    assert err.startswith("error: ")
    assert (out, err.count("\n")) == ("", 1)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("pyarrow", [], "corpora are written as Parquet, which needs pyarrow: pip install 'gpt2-np[corpora]'"),
        ("ray", ["--engine", "ray"], "engine 'ray' needs Ray, which is not installed: pip install 'gpt2-np[ray]'"),
    ],
)
def test_without_a_package(package: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / f"blocked/{package}.py").write_text("raise ModuleNotFoundError('blocked', name=__name__)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "gpt2_np", "corpus", "score", "a.txt", "out", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")
    assert not Path("out").exists()

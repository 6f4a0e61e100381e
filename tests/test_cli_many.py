"""Many prompts at once on the command line: files, standard input, batches, and runs that were killed."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from gpt2_np import GPT2
from gpt2_np.cli import lines, main, many
from gpt2_np.cli.many import Job

COMMAND = [sys.executable, "-m", "gpt2_np"]
MODEL = ["--backend", "numpy"]
PROMPTS = ["The king", "Once upon a time", "The sea was", "A", "The old woman had"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[list[dict], str]:
    """The objects that a command prints, and what it says on stderr."""
    with pytest.raises(SystemExit) if status else nullcontext() as left:
        main([*arguments, *MODEL])
    out, err = capsys.readouterr()
    assert left is None or left.value.code == status, err
    return [json.loads(line) for line in out.splitlines()], err


def written(path: Path, *prompts: object) -> str:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in prompts))
    return str(path)


def test_lines_of_text_are_answered_in_order_as_each_alone(capsys, tmp_path: Path, gpt2: GPT2) -> None:
    file = written(tmp_path / "prompts", PROMPTS[0], "", *PROMPTS[1:])  # an empty line is none
    found, err = run(capsys, "generate", "--prompts", file, "-n", "5")
    assert [one["index"] for one in found] == [0, 1, 2, 3, 4]
    assert err == ""
    for one, prompt in zip(found, PROMPTS, strict=True):
        alone = gpt2.generate(prompt, max_new_tokens=5)
        assert (one["prompt"], one["text"], one["ids"]) == (prompt, alone.text, alone.ids)
        assert one["logprobs"] == pytest.approx(alone.logprobs, abs=1e-4)


def test_a_line_of_json_has_options_of_its_own_and_a_bad_one_an_error(capsys, tmp_path: Path, gpt2: GPT2) -> None:
    rows = [
        {"prompt": "The king", "max_new_tokens": 3},
        {"prompt": [343, 768], "num_beams": 2, "num_return_sequences": 2},
        "no json",
        {"prompt": "x", "stop": ","},
        {"max_new_tokens": 3},
        {"prompt": "The sea", "do_sample": True, "seed": 5},
        {"prompt": "The king", "logit_bias": {"15": 90.0}},
        {"prompt": "x", "top_p": 0.5},
        [1],
        {"prompt": None},
        {"prompt": "The king", "choice": [" good", " bad"]},
    ]
    found, _ = run(capsys, "generate", "--prompts", written(tmp_path / "p.jsonl", *rows), "-n", "4", status=1)
    by_index = {key: list(some) for key, some in itertools.groupby(found, lambda one: one["index"])}
    assert list(by_index) == list(range(len(rows)))
    assert len(by_index[0][0]["ids"]) == 3
    beams = gpt2.generate([343, 768], num_beams=2, num_return_sequences=2, max_new_tokens=4)
    assert [one["ids"] for one in by_index[1]] == [one.ids for one in beams]
    assert [(one["sequence"], one["sequences"]) for one in by_index[1]] == [(0, 2), (1, 2)]
    assert by_index[5][0]["ids"] == gpt2.generate("The sea", do_sample=True, seed=5, max_new_tokens=4).ids
    assert by_index[6][0]["ids"] == [15] * 4
    assert by_index[10][0]["text"] in (" good", " bad")
    errors = {
        2: "a line must be a JSON object",
        3: "did you mean 'stop_strings'?",
        4: 'a line must have a "prompt"',
        7: "top_p acts only when sampling",
        8: "a line must be a JSON object, got [1]",
        9: "a prompt must be a text or a list of ids",
    }
    for index, message in errors.items():
        assert by_index[index][0].keys() == {"index", "error"}
        assert message in by_index[index][0]["error"]


def test_seeded_draws_don_t_depend_on_what_else_is_asked(capsys, tmp_path: Path, gpt2: GPT2) -> None:
    sampling = ["-n", "4", "--do-sample", "--seed", "3"]
    found, _ = run(capsys, "generate", "--prompts", written(tmp_path / "p", *PROMPTS[:3]), *sampling)
    for one, prompt in zip(found, PROMPTS[:3], strict=True):
        assert one["ids"] == gpt2.generate(prompt, max_new_tokens=4, do_sample=True, seed=3).ids


def test_standard_input_is_one_prompt_or_many() -> None:
    def piped(content: str, *arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments, *MODEL], input=content, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert piped("The king\nwas", "generate", "-", "-n", "2").startswith("The king\nwas ")
    objects = [json.loads(one) for one in piped('{"prompt": "The sea"}\n', "score", "--prompts", "-").splitlines()]
    assert [one["bytes"] for one in objects] == [len("The sea")]


def test_which_lines_are_prompts() -> None:
    def parsed(content: bytes, jsonl: bool | None) -> list:
        found = lines.parse(content.splitlines(keepends=True), jsonl)
        return [one.error or one.fields for one in found]

    assert parsed(b"\xef\xbb\xbfa\r\n\n b \nc", False) == [{"prompt": "a"}, {"prompt": " b "}, {"prompt": "c"}]
    assert parsed(b'{"prompt": "a"}\n{}', None) == [{"prompt": "a"}, {}]
    assert parsed(b'[1]\n{"a": 1}', None) == [{"prompt": "[1]"}, {"prompt": '{"a": 1}'}]
    assert parsed(b"caf\xe9\nb", False) == ["a line must be UTF-8 text; its byte 3 is not", {"prompt": "b"}]
    assert "nested too deeply" in parsed(b"[" * 100_000, True)[0]


def test_batches_are_of_one_kind_and_bounded() -> None:
    jobs = [Job(number, None, "ab"[number % 2], cost=(number % 7) * many.MEMORY // 8 + 1) for number in range(50)]
    jobs.append(Job(50, None, None))
    found = list(many.batches(jobs))
    assert sorted(job.index for batch in found for job in batch) == list(range(51))
    for batch in found:
        assert len({job.key for job in batch}) == 1
        assert len(batch) == 1 or max(job.cost for job in batch) * len(batch) <= many.MEMORY


def test_scores_are_those_of_each_text_alone(capsys, tmp_path: Path, gpt2: GPT2) -> None:
    rows = [
        {"text": "The old king had three sons."},
        {"text": " throne.", "prompt": "The king sat on his"},
        {"text": "word " * 600, "stride": 400},
        {"text": ""},
        {"text": [343, 768]},
        {"prompt": "The sea"},
        {"text": 5},
        {"text": "a", "top": 3},
    ]
    found, _ = run(capsys, "score", "--prompts", written(tmp_path / "p.jsonl", *rows), status=1)
    assert [one["index"] for one in found] == list(range(len(rows)))
    expected = {
        0: gpt2.score("The old king had three sons."),
        1: gpt2.score(" throne.", prompt="The king sat on his"),
        2: gpt2.score("word " * 600, stride=400),
        4: gpt2.score([343, 768]),
        5: gpt2.score("The sea"),
    }
    for index, one in expected.items():
        assert found[index]["nll"] == pytest.approx(one.nll, rel=1e-5)
        assert (found[index]["tokens"], found[index]["bytes"]) == (one.tokens, one.bytes)
    assert "there is nothing to score" in found[3]["error"]
    assert 'a "text" must be a text or a list of ids, got int 5' in found[6]["error"]
    assert "a line may hold a text, a prompt and a stride, got top" in found[7]["error"]


# ---- resumption ----------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_file(tmp_path: Path) -> None:
    file, out, whole = written(tmp_path / "p", *PROMPTS * 8), tmp_path / "out", tmp_path / "whole"
    arguments = [*COMMAND, "generate", "--prompts", file, "-n", "12", "--do-sample", "--seed", "1", *MODEL, "--output"]
    assert subprocess.run([*arguments, str(whole)], timeout=300).returncode == 0
    process = subprocess.Popen([*arguments, str(out)])
    until = time.monotonic() + 200
    while time.monotonic() < until and (not out.exists() or out.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    before = out.read_bytes()
    assert 5 <= before.count(b"\n") < 40
    with out.open("ab") as torn:
        torn.write(b'{"index": 39, "prompt": "A ki')
    assert subprocess.run([*arguments, str(out)], timeout=300).returncode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert out.read_bytes().startswith(before)
    assert subprocess.run([*arguments, str(out)], timeout=300).returncode == 0  # nothing is left to do
    assert out.read_bytes() == whole.read_bytes()


def test_what_is_there_is_not_asked_again(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = written(tmp_path / "p.jsonl", *({"prompt": one} for one in PROMPTS[:3]), "bad"), tmp_path / "out"
    assert run(capsys, "generate", "--prompts", file, "-n", "3", "--output", str(out), status=1)[0] == []
    rows = out.read_text().splitlines(keepends=True)
    asked = []
    generate = GPT2.generate
    monkeypatch.setattr(
        GPT2, "generate", lambda self, prompts, **o: asked.extend(prompts) or generate(self, prompts, **o)
    )
    run(capsys, "generate", "--prompts", file, "-n", "3", "--output", str(out), status=1)  # an error is still one
    assert asked == []
    out.write_text(rows[0] + rows[2] + rows[3])
    run(capsys, "generate", "--prompts", file, "-n", "3", "--output", str(out), status=1)
    assert len(asked) == 1
    assert out.read_text() == rows[0] + rows[2] + rows[3] + rows[1]


def test_sequences_are_there_all_or_none(capsys, tmp_path: Path) -> None:
    file, out = written(tmp_path / "p", *PROMPTS[:2]), tmp_path / "out"
    beams = ["--num-beams", "3", "--num-return-sequences", "3", "-n", "2", "--output", str(out)]
    run(capsys, "generate", "--prompts", file, *beams)
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:5]))
    run(capsys, "generate", "--prompts", file, *beams)
    assert out.read_text() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("my notes\n", "line 1 is none"),
        ('{"index": 0, "prompt": "another", "text": ""}\n', "holds the result of another prompt at index 0: 'another'"),
        ('{"index": true}\n', "line 1 is none"),
        ('{"index": 0}\n{"index": -1}\n', "line 2 is none"),
    ],
)
def test_a_file_that_is_something_else_is_left_alone(content: str, message: str, capsys, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text(content)
    _, err = run(capsys, "generate", "--prompts", written(tmp_path / "p", "The king"), "--output", str(out), status=2)
    assert message in err
    assert out.read_text() == content


def test_two_runs_don_t_share_a_file(capsys, tmp_path: Path) -> None:
    from gpt2_np.cli.results import Appended

    out = tmp_path / "out"
    with Appended(out):
        _, err = run(capsys, "generate", "The king", "--output", str(out), status=2)
    assert "is being written by another run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "Missing argument 'PROMPT': give a text, - for standard input, or --prompts FILE"),
        (["generate", "x", "--prompts", "y"], "and only one"),
        (["generate", "--prompts", "/nowhere"], "/nowhere: No such file or directory"),
        (["generate", "x", "--output", "/nowhere/out"], "/nowhere/out: No such file or directory"),
        (["generate", "x", "--output", "out", "--explain"], "--explain and --trace are for one prompt"),
        (["score", "x", "--prompts", "y"], "give either a TEXT or --file or --prompts"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, err = run(capsys, *arguments, status=2)
    assert message in err
    assert err.count("\n") == 1
    assert found == []

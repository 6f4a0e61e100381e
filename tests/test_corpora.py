"""Corpora: a shard holds what the model says of each row, however the work was cut, stopped or shared out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_np import GPT2, corpora
from gpt2_np.corpora import inputs, shards
from gpt2_np.corpora.inputs import Cut
from gpt2_np.internals.capture import Captured

pa = pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = "the old king had three sons and a fox that ran to the river where a bird of gold sang at night".split()
ROWS = [" ".join(random.Random(seed).choices(WORDS, k=3 + seed % 9)) for seed in range(23)]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows))
    return path


def table(out: Path) -> list[dict[str, Any]]:
    """All rows, as any reader of folders of Parquet finds them."""
    return pq.read_table(out).to_pylist()


def files(out: Path) -> dict[str, bytes]:
    """What a folder holds, but for where the corpus lies."""
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    about = json.loads(found.pop("_corpus.json"))
    return found | {"about": json.dumps({name: about[name] for name in about if name != "files"}).encode()}


def score(paths: Any, out: Path, **options: Any) -> corpora.Result:
    return corpora.score(paths, out, **{"backend": "numpy", "shard_rows": 4} | options)


# ---- what is in the shards ------------------------------------------------------------------------------------------


def test_scores_are_those_of_each_row_alone(tmp_path: Path, gpt2: GPT2) -> None:
    lines = [
        *({"id": f"row {number}", "text": row, "url": "left out"} for number, row in enumerate(ROWS)),
        {"text": " throne.", "prompt": "The king sat on his"},
        {"id": 7, "text": "word " * 300, "stride": 200},
        {"id": "ids", "text": [343, 768]},
    ]
    told = []
    result = score(written(tmp_path / "a.jsonl", lines), tmp_path / "out", progress=lambda *counts: told.append(counts))
    found = table(tmp_path / "out")
    assert [one["id"] for one in found] == [*(f"row {number}" for number in range(23)), "23", "7", "ids"]
    for one, line in zip(found, lines, strict=True):
        alone = gpt2.score(line["text"], prompt=line.get("prompt"), stride=line.get("stride"))
        assert one["nll"] == pytest.approx(alone.nll, rel=1e-5)
        assert (one["tokens"], one["bytes"]) == (alone.tokens, alone.bytes)
    assert (result.rows, result.shards, result.new, result.errors) == (26, 7, 7, [])
    assert result.sums["tokens"] == sum(one["tokens"] for one in found)
    assert result.bits_per_byte == pytest.approx(sum(one["nll"] for one in found) / np.log(2) / result.sums["bytes"])
    assert told[-1] == (26, 26)
    assert len(told) == 7


def test_rows_are_numbered_through_text_jsonl_and_parquet(tmp_path: Path, gpt2: GPT2) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes(b"\xef\xbb\xbf" + f"{ROWS[0]}\r\n\n  \n{ROWS[1]}".encode())
    lines = written(tmp_path / "b.jsonl", [{"content": ROWS[2]}, "", {"content": ROWS[3]}])
    rows = pa.table({"content": [*ROWS[4:14], None], "other": [1.5] * 11})
    pq.write_table(rows, tmp_path / "c.parquet", row_group_size=4)
    paths = [text, lines, tmp_path / "c.parquet"]
    result = score(paths, tmp_path / "out", field="content", shard_rows=3)
    found = table(tmp_path / "out")
    assert [one["id"] for one in found] == list(range(14))
    for one, row in zip(found, ROWS, strict=False):
        assert one["nll"] == pytest.approx(gpt2.score(row).nll, rel=1e-5)
    assert [(one["row"], Path(one["file"]).name) for one in result.errors] == [(14, "c.parquet")]
    (tmp_path / "books").mkdir()
    text.rename(tmp_path / "books" / "a.txt")
    assert score(tmp_path / "books", tmp_path / "out2").rows == 2


def test_a_bad_row_is_kept_aside(tmp_path: Path) -> None:
    lines = [{"text": ROWS[0]}, "no json", {"text": ""}, {"text": 5}, {"text": [10**6]}, {"id": 3, "text": "a"}]
    path = written(tmp_path / "a.jsonl", lines)
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    result = score(path, tmp_path / "out")
    assert [one["id"] for one in table(tmp_path / "out")] == [0]
    errors = [json.loads(line) for line in (tmp_path / "out/_errors.jsonl").read_text().splitlines()]
    assert errors == result.errors
    assert [one["row"] for one in errors] == [1, 2, 3, 4, 5, 6]
    assert not any("id" in one for one in errors)
    words = ["a JSON object", "the text is empty", "got int 5", "ids must be between 0 and", "an id must be absent"]
    for one, word in zip(errors, [*words, "a JSON object"], strict=True):
        assert word in one["error"]
    again = score(path, tmp_path / "out")  # an error is still one
    assert (again.new, again.errors) == (0, errors)


def test_texts_are_those_of_each_prompt_alone(tmp_path: Path, gpt2: GPT2) -> None:
    lines = [
        {"id": 10, "prompt": "The king"},
        {"id": 11, "prompt": [343, 768], "num_beams": 2, "num_return_sequences": 2},
        {"id": 12, "prompt": "The sea", "max_new_tokens": 2, "url": "no option"},
        {"id": 13, "prompt": "The sea", "do_sample": True, "seed": 5},
    ]
    path = written(tmp_path / "a.jsonl", lines)
    result = corpora.generate(path, tmp_path / "out", backend="numpy", options={"max_new_tokens": 4}, shard_rows=2)
    found = table(tmp_path / "out")
    assert [(one["id"], one["sequence"]) for one in found] == [(10, 0), (11, 0), (11, 1), (13, 0)]
    beams = gpt2.generate([343, 768], num_beams=2, num_return_sequences=2, max_new_tokens=4)
    drawn = gpt2.generate("The sea", max_new_tokens=4, do_sample=True, seed=5)
    for one, alone in zip(found, [gpt2.generate("The king", max_new_tokens=4), *beams, drawn], strict=True):
        assert (one["text"], one["ids"], one["finish_reason"]) == (alone.text, alone.ids, alone.finish_reason)
        assert one["logprobs"] == pytest.approx(alone.logprobs, abs=1e-4)
        assert (one["score"] is None) == (alone.score is None)
    assert found[1]["prompt"] == gpt2.tokenizer.decode([343, 768])
    assert "url" in result.errors[0]["error"]


def test_a_capture_is_read_as_any_other(tmp_path: Path, gpt2: GPT2) -> None:
    path = written(tmp_path / "a.jsonl", [{"id": f"d{number}", "text": row} for number, row in enumerate(ROWS)])
    names = ["blocks.*.resid_pre", "blocks.0.mlp.post"]
    result = corpora.capture(path, tmp_path / "out", names, length=6, shard_rows=4)
    captured = Captured(tmp_path / "out")
    assert len(captured) == result.sums["texts"] > len(ROWS)
    start = gpt2.prompt_ids("")[0]
    texts = []
    for row in ROWS:
        ids = gpt2.tokenizer.encode(row)
        texts += [[start, *ids[at : at + 5]] for at in range(0, len(ids), 5)]
    for number, text in enumerate(texts):
        assert captured.ids(number).tolist() == text
        _, cache = gpt2.run_with_cache([text], names)
        for name in captured.names:
            np.testing.assert_allclose(captured[number, name], cache[name][0], rtol=1e-4, atol=1e-4)
    of_texts = [one for path in captured.chunks for one in shards.about(path)["texts"]]
    assert len(of_texts) == len(texts)
    assert of_texts[0] == [0, "d0"]
    captured.chunks[1].unlink()
    with pytest.raises(ValueError, match="has gaps"):
        Captured(tmp_path / "out")


# ---- where parts lie ------------------------------------------------------------------------------------------------

LINE = st.one_of(st.text(alphabet="ab c\t\r\x0b", max_size=12), st.just(""), st.just("é" * 5))


@given(lines=st.lists(LINE, max_size=30), end=st.booleans(), rows=st.integers(1, 9), size=st.integers(1, 60))
@settings(max_examples=80)
def test_parts_hold_every_line_once(tmp_path_factory: Any, lines: list[str], end: bool, rows: int, size: int) -> None:
    """However lines are cut into parts and blocks, what is read is what Python's own file has."""
    path = tmp_path_factory.mktemp("parts") / "a.txt"
    path.write_bytes(("\n".join(lines) + "\n" * end).encode())
    expected = [one.removesuffix(b"\r") for one in path.read_bytes().split(b"\n") if one.strip()]
    before = inputs.BLOCK
    inputs.BLOCK = 16
    try:
        if not expected:
            with pytest.raises(ValueError, match="there is no row"):
                inputs.scan([path], Cut(rows, size))
            return
        (source,), parts = inputs.scan([path], Cut(rows, size))
    finally:
        inputs.BLOCK = before
    found = [line for part in parts for line in inputs.read(source, part)]
    assert [line.index for line in found] == list(range(len(expected)))
    assert [line.fields["prompt"].encode() for line in found] == expected
    assert all(part.rows <= rows and (part.rows == 1 or part.stop - part.start <= size) for part in parts)


@pytest.mark.parametrize("group", [1, 3, 50])
def test_parts_of_a_table(tmp_path: Path, group: int) -> None:
    pq.write_table(pa.table({"text": ROWS}), tmp_path / "a.parquet", row_group_size=group)
    (source,), parts = inputs.scan([tmp_path / "a.parquet"], Cut(4, 1 << 20))
    found = [line for part in parts for line in inputs.read(source, part, ["text"])]
    assert [(line.index, line.fields["text"]) for line in found] == list(enumerate(ROWS))


# ---- stopped, and gone on with --------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_folder(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", ROWS * 4)
    arguments = ["corpus", "score", str(path), "--backend", "numpy", "--shard-rows", "4"]
    command = [sys.executable, "-m", "gpt2_np", *arguments, str(tmp_path / "out")]
    process = subprocess.Popen(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    until = time.monotonic() + 200
    while time.monotonic() < until and len(list((tmp_path / "out").glob("part-*"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    (tmp_path / "out/.part-00040.parquet.0123.part").write_bytes(b"half of")
    there = {one: one.stat().st_mtime_ns for one in (tmp_path / "out").glob("part-*")}
    assert 3 <= len(there) < 23
    result = score(path, tmp_path / "out")
    assert result.new == 23 - len(there)
    assert {one: one.stat().st_mtime_ns for one in there} == there
    score(path, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_shards_don_t_depend_on_what_was_done_before(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", ROWS)
    whole = score(path, tmp_path / "whole")
    score(path, tmp_path / "out")
    for number in (4, 1):
        (tmp_path / f"out/part-0000{number}.parquet").unlink()
    again = score(path, tmp_path / "out")
    assert (again.new, again.sums) == (2, whole.sums)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_rows": 5}, "another size of shards: rows is 4 there, not 5"),
        ({"prompt": "The"}, "another set of options: prompt is None there, not 'The'"),
        ({"dtype": "int8"}, "another dtype: 'float32', not 'int8'"),
        ({"rows": ROWS[1:]}, "another corpus"),
    ],
)
def test_a_folder_in_use_is_left_alone(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", ROWS)
    score(path, tmp_path / "out")
    before = files(tmp_path / "out")
    written(path, options.pop("rows", ROWS))
    with pytest.raises(ValueError, match=message):
        score(path, tmp_path / "out", **options)
    assert files(tmp_path / "out") == before


def test_another_model_is_another_run(tmp_path: Path, small: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": [1, 2, 3]}])
    score(path, tmp_path / "out")
    with pytest.raises(ValueError, match="holds a run with another model;"):
        score(path, tmp_path / "out", model=small)


# ---- mistakes and faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"\x1f\x8b\x08\x00", "a.txt", "is packed .gzip.: its parts can't be read apart, so unpack it first"),
        (b"PAR1xxxx", "a.txt", "is a Parquet file: let its name end in .parquet"),
        (b"no table at all", "a.parquet", "is not a sound Parquet file"),
        (b"", "a.parquet", "is not a sound Parquet file"),
        (b"\n \n", "a.txt", "there is no row in"),
        (b'{"content": "a"}\n', "a.jsonl", "has a 'text'; --field can name another"),
        (b'{"id": 1.5, "text": "a"}\n', "a.jsonl", "an id must be a whole number or a text, got 1.5 in row 0"),
    ],
)
def test_a_file_that_can_t_be_a_corpus(content: bytes, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        score(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "engine must be one of local, ray, got 'spark'"),
        ({"shard_rows": 0}, "shard_rows must be at least 1, got 0"),
        ({"dtype": "int3"}, "dtype must be one of"),
        ({"backend": "torch"}, "backend must be one of"),
        ({"stride": 0}, "stride must be a whole number between 1 and"),
        ({"id_field": "text"}, "the fields of text and id must be two names"),
    ],
)
def test_options_that_can_t_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        score(written(tmp_path / "a.txt", ROWS), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", ROWS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("mine")
    with pytest.raises(ValueError, match="holds other files, such as notes; choose a new folder or an empty one"):
        score(path, tmp_path / "mine")
    with pytest.raises(ValueError, match="must not lie in"):
        score(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        score(tmp_path / "nowhere", tmp_path / "out")
    from gpt2_np.corpora import folder

    with folder.held(tmp_path / "out"), pytest.raises(ValueError, match="is being written by another run"):
        score(path, tmp_path / "out")
    score(path, tmp_path / "out")
    (tmp_path / "out/part-00002.parquet").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"part-00002.parquet is not a shard of this kind; remove it and run again"):
        score(path, tmp_path / "out")


def test_a_full_disk_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.txt", ROWS)
    write = shards.write_whole

    def full(where: Path, content: Any) -> None:
        if where.name == "part-00002.parquet":
            raise OSError(28, "No space left on device", str(where))
        write(where, content)

    monkeypatch.setattr(shards, "write_whole", full)
    with pytest.raises(OSError, match=r"part-00002.parquet") as raised:
        score(path, tmp_path / "out")
    assert raised.value.errno == 28
    assert [one["id"] for one in table(tmp_path / "out")] == list(range(8))
    monkeypatch.undo()
    assert score(path, tmp_path / "out").new == 4

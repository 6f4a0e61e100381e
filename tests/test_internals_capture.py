"""Captures on disk: what is written is what a run gives, and survives kills, full disks and broken documents."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from golden_transformer_lens import as_loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids

from gpt2_np.internals import corpus
from gpt2_np.internals.capture import Captured, capture_corpus, estimate
from gpt2_np.internals.corpus import read_corpus
from gpt2_np.session.model import Model
from gpt2_np.system.files import write_whole
from gpt2_np.text.gpt2 import GPT2

NAMES = ["blocks.*.hook_resid_pre", "blocks.1.attn.pattern"]
TEXTS = [random_ids(1, length, 31, seed=length)[0].tolist() for length in (3, 16, 1, 9, 5, 12, 2)]


def same(captured: Captured, model: Model, texts: list[list[int]], **tolerance: float) -> None:
    assert len(captured) == len(texts)
    for number, text in enumerate(texts):
        _, cache = model.run_with_cache(text, NAMES)
        assert captured.ids(number).tolist() == text
        for name in cache:
            np.testing.assert_allclose(captured[number, name], cache[name][0], **{"rtol": 0, **tolerance})


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 1 << 30])
def test_what_is_written_is_what_a_run_gives(tmp_path: Path, chunk_bytes: int) -> None:
    told: list[int] = []
    captured = capture_corpus(
        as_loaded(), iter(TEXTS), NAMES, tmp_path / "run", chunk_bytes=chunk_bytes, progress=told.append
    )
    same(captured, as_loaded(), TEXTS)
    assert told == [len(text) for text in TEXTS]
    assert len(captured.chunks) == {1: 7, 3000: len(captured.chunks), 1 << 30: 1}[chunk_bytes]
    rows = np.concatenate(list(captured.over_texts("blocks.1.resid_pre")))
    assert rows.shape == (sum(map(len, TEXTS)), 16)
    size = estimate(as_loaded(), NAMES, [len(text) for text in TEXTS])
    stored = sum(captured[text, name].nbytes for text in range(7) for name in [*captured.names, "ids"])
    assert size == stored


def test_float16_halves_the_size_and_rounds(tmp_path: Path) -> None:
    captured = capture_corpus(as_loaded(), TEXTS, NAMES, tmp_path, dtype="float16")
    assert captured[1, "blocks.0.resid_pre"].dtype == np.float16
    same(captured, as_loaded(), TEXTS, rtol=1e-3, atol=1e-6)


def test_a_capture_goes_on_where_it_was(tmp_path: Path) -> None:
    first = capture_corpus(as_loaded(), TEXTS[:4], NAMES, tmp_path, chunk_bytes=2000)
    old = {path: path.stat().st_mtime_ns for path in first.chunks}
    told: list[int] = []
    captured = capture_corpus(as_loaded(), TEXTS, NAMES, tmp_path, chunk_bytes=2000, progress=told.append)
    same(captured, as_loaded(), TEXTS)
    assert {path: path.stat().st_mtime_ns for path in old} == old
    assert told == [len(text) for text in TEXTS]


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from golden_transformer_lens import as_loaded
from gpt2_np.internals.capture import capture_corpus
texts = {texts!r}
def slowly():
    for text in texts:
        time.sleep(0.05)
        yield text
capture_corpus(as_loaded(), slowly(), {names!r}, Path({folder!r}), chunk_bytes=1)
"""


def script(folder: Path, before: str = "") -> subprocess.Popen:
    code = before + KILLED.format(tests=str(Path(__file__).parent), texts=TEXTS * 20, names=NAMES, folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_a_killed_capture_is_readable_and_goes_on(tmp_path: Path) -> None:
    process = script(tmp_path / "run")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "run").glob("chunk-*.safetensors"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(Captured(tmp_path / "run"))
    assert 4 <= done < 140
    same(Captured(tmp_path / "run"), as_loaded(), (TEXTS * 20)[:done])
    texts = (TEXTS * 20)[: done + 5]
    same(capture_corpus(as_loaded(), texts, NAMES, tmp_path / "run"), as_loaded(), texts)


def test_a_disk_that_takes_no_more_leaves_what_was_written(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: the operating system refuses to write on."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    process = script(tmp_path / "run", limit)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "OSError: [Errno 27] File too large" in stderr.splitlines()[-1]
    assert "chunk-00001.safetensors" in stderr.splitlines()[-1]
    same(Captured(tmp_path / "run"), as_loaded(), TEXTS[:1])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["capture.json", "chunk-00000.safetensors"]
    same(capture_corpus(as_loaded(), TEXTS, NAMES, tmp_path / "run"), as_loaded(), TEXTS)


def test_writing_whole_files(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_whole(tmp_path / "link", b"newer")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"newer"
    (tmp_path / "a.part").write_bytes(b"mine")
    (tmp_path / "b.part").symlink_to(tmp_path / "a")
    write_whole(tmp_path / "a", b"newest")
    write_whole(tmp_path / "b", b"other")
    assert [(tmp_path / name).read_bytes() for name in ("a", "a.part", "b", "b.part")] == [
        b"newest", b"mine", b"other", b"newest",
    ]  # fmt: skip
    write_whole(tmp_path / ("é" * 120), b"a long name")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.part", "b", "b.part", "link", "é" * 120]
    write_whole(Path("/dev/null"), b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_whole(Path("/dev/full"), b"gone")
    with pytest.raises(OSError, match="Is a directory"):
        write_whole(tmp_path, b"")
    with pytest.raises(OSError, match=r"No such file or directory: '.*missing/a'"):
        write_whole(tmp_path / "missing" / "a", b"")


class Letters:
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) % 31 for letter in text]


class Words:
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [len(word) for word in text.split()]


def test_a_corpus_is_cut_into_texts(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("abcdefg")
    (tmp_path / "a.txt").write_text("xyz")
    (tmp_path / "c.md").write_text("no")
    texts = list(read_corpus(tmp_path, Letters(), length=4, start=0))
    assert texts == [
        [0, *Letters().encode("xyz")],
        [0, *Letters().encode("abc")],
        [0, *Letters().encode("def")],
        [0, *Letters().encode("g")],
    ]
    assert list(read_corpus(tmp_path / "a.txt", Letters(), length=4)) == [Letters().encode("xyz")]


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
@settings(deadline=None)
@given(text=st.text(st.sampled_from("ab'sé\u2003\n\t \x1c1!日😀"), max_size=60))
def test_a_corpus_read_block_by_block_has_the_ids_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, block: int, text: str
) -> None:
    path, tokenizer = tmp_path_factory.mktemp("corpus") / "a.txt", GPT2.from_pretrained(backend="numpy").tokenizer
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BLOCK", block)
        texts = list(read_corpus(path, tokenizer, length=4))
    assert [one for text_ids in texts for one in text_ids] == tokenizer.encode(text)
    assert all(len(one) == 4 for one in texts[:-1])


def test_a_large_corpus_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BLOCK", 1 << 14)
    path = tmp_path / "a.txt"
    path.write_text("one two\n" * 500_000)
    tracemalloc.start()
    count = sum(len(text) for text in read_corpus(path, Words(), length=16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_000_000
    assert peak < 1 << 20  # the file has 4 million bytes


def test_a_byte_that_is_not_utf8_is_named_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BLOCK", 4)
    for content, byte in ((b"good \xff", 5), ("aé é é ".encode() + b"\xff", 10), ("abc é".encode()[:-1], 4)):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"a.txt must be UTF-8 text; byte {byte} is not"):
            list(read_corpus(tmp_path, Letters(), length=16))


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_an_unreadable_document_stops_with_its_name_and_keeps_the_rest(tmp_path: Path, chunk_bytes: int) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("first one")
    (corpus / "b.txt").write_bytes(b"bad \xff")
    with pytest.raises(ValueError, match=r"b.txt must be UTF-8 text; byte 4 is not"):
        capture_corpus(
            as_loaded(), read_corpus(corpus, Letters(), length=16), NAMES, tmp_path / "run", chunk_bytes=chunk_bytes
        )
    assert len(Captured(tmp_path / "run")) == 1
    (corpus / "b.txt").write_text("good")
    captured = capture_corpus(as_loaded(), read_corpus(corpus, Letters(), length=16), NAMES, tmp_path / "run")
    same(captured, as_loaded(), [Letters().encode("first one"), Letters().encode("good")])


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    model = as_loaded()
    capture_corpus(model, TEXTS, NAMES, tmp_path / "run")
    other = model.with_params(model.params._replace(wpe=model.params.wpe + 1))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "capture.json").write_text(json.dumps({"names": NAMES, "dtype": "float32", "model": ""}))
    (broken / "chunk-00000.safetensors").write_bytes(b"nonsense")
    gap = tmp_path / "gap"
    capture_corpus(model, TEXTS, NAMES, gap, chunk_bytes=1)
    os.unlink(gap / "chunk-00002.safetensors")
    empty = tmp_path / "empty"
    empty.mkdir()
    for call, message in [
        (lambda: capture_corpus(model, TEXTS, "embed", tmp_path / "run"), r"holds a capture with another names: \["),
        (lambda: capture_corpus(other, TEXTS, NAMES, tmp_path / "run"), "holds a capture with another model"),
        (lambda: capture_corpus(model, TEXTS, NAMES, tmp_path / "run", dtype="float16"), "another dtype: float32, not"),
        (lambda: capture_corpus(model, TEXTS, NAMES, tmp_path / "x", dtype="int8"), "dtype must be 'float32' or"),
        (lambda: capture_corpus(model, TEXTS, "resid", tmp_path / "x"), "no activation is named 'resid'"),
        (lambda: capture_corpus(model, [[31]], NAMES, tmp_path / "y"), "ids must be between 0 and 30, got 31"),
        (lambda: capture_corpus(model, TEXTS, NAMES, tmp_path / "y", chunk_bytes=0), "chunk_bytes must be at least 1"),
        (lambda: Captured(tmp_path / "run")[7, "ids"], "text must be between 0 and 6, got 7"),
        (lambda: Captured(tmp_path / "run")[0, "embed"], "'embed' is not in this capture; it holds blocks.0.resid_pre"),
        (lambda: Captured(broken), "chunk-00000.safetensors is not a sound safetensors file"),
        (lambda: Captured(gap), "has gaps: some of its chunks are missing"),
        (lambda: Captured(tmp_path / "nowhere"), "No such file or directory"),
        (lambda: read_corpus(empty, Letters(), length=9), "empty holds no .txt file"),
        (lambda: read_corpus(tmp_path / "nowhere", Letters(), length=9), "No such file or directory"),
        (lambda: read_corpus(empty, Letters(), length=1), "length must be at least 2, got 1"),
    ]:
        with pytest.raises((ValueError, OSError), match=message) as caught:
            call()
        assert "\n" not in str(caught.value)

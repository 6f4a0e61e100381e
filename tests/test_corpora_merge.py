"""Parts put together are what one run over all of them gives: to the byte for shards, to rounding for sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2, corpora
from gpt2_np.internals import dictionaries, jacobian_lens
from gpt2_np.internals.capture import Captured, capture_corpus
from gpt2_np.internals.dictionaries import sums
from gpt2_np.internals.dictionaries.evaluation import summed

pq = pytest.importorskip("pyarrow.parquet", reason="corpora are written as Parquet, which needs pyarrow")

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [f"The king had {number} sons, and the fox ran to the river." for number in range(11)]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows))
    return path


def same(one: Path, other: Path) -> None:
    """Both folders hold the same files, but for where the corpus lies."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        left, right = (folder / name for folder in (one, other))
        if name == "_corpus.json":
            abouts = [json.loads(path.read_text()) for path in (left, right)]
            assert abouts[0] == abouts[1]
        else:
            assert left.read_bytes() == right.read_bytes(), name


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("task", ["score", "generate", "capture"])
def test_folders_of_parts_are_those_of_the_whole(task: str, ids: bool, tmp_path: Path) -> None:
    field = "prompt" if task == "generate" else "text"
    rows = [{field: text} | ({"id": f"d{number}"} if ids else {}) for number, text in enumerate(TEXTS)]
    files = [written(tmp_path / f"{at}.jsonl", rows[at * 4 : at * 4 + 4]) for at in range(3)]
    files[1].write_text(files[1].read_text() + "no json\n")

    def run(paths: list[Path], out: Path) -> corpora.Result:
        if task == "capture":
            return corpora.capture(paths, out, "blocks.1.resid_pre", length=9, shard_rows=2)
        if task == "generate":
            return corpora.generate(paths, out, backend="numpy", options={"max_new_tokens": 2}, shard_rows=2)
        return corpora.score(paths, out, backend="numpy", shard_rows=2)

    for at, path in enumerate(files):
        run([path], tmp_path / f"part{at}")
    merged = corpora.merge([tmp_path / f"part{at}" for at in range(3)], tmp_path / "merged")
    assert (merged.kind, merged.parts, merged.count) == (task, 3, 12)
    whole = run(files, tmp_path / "whole")
    same(tmp_path / "merged", tmp_path / "whole")
    assert [one["row"] for one in whole.errors] == [8]
    assert run(files, tmp_path / "merged").new == 0  # it is the whole's own folder


def test_parts_that_don_t_fit_together(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{at}.txt", TEXTS[at * 4 : at * 4 + 4]) for at in range(2)]
    for at, path in enumerate(files):
        corpora.score(path, tmp_path / f"s{at}", backend="numpy", shard_rows=2, prompt="A" if at else None)
    corpora.capture(files[0], tmp_path / "c", "blocks.1.resid_pre")
    with pytest.raises(ValueError, match=r"s1 is of another set of options than .*s0: prompt is 'A' there, not None"):
        corpora.merge([tmp_path / "s0", tmp_path / "s1"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"parts to merge must be of one kind, got .*s0 .score., .*c .capture."):
        corpora.merge([tmp_path / "s0", tmp_path / "c"], tmp_path / "out")
    with pytest.raises(ValueError, match="s1 is there already"):
        corpora.merge([tmp_path / "s0"], tmp_path / "s1")
    with pytest.raises(ValueError, match=r"0.txt is neither a folder of shards"):
        corpora.merge([files[0]], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        corpora.merge([tmp_path / "nowhere"], tmp_path / "out")
    next((tmp_path / "s0").glob("part-*")).unlink()
    with pytest.raises(ValueError, match="s0 is not finished: 1 of its 2 shards are missing"):
        corpora.merge([tmp_path / "s0"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_captures_of_one_process_merge(tmp_path: Path) -> None:
    model = GPT2.from_pretrained(backend="numpy")
    texts = [model.tokenizer.encode(text) for text in TEXTS]
    for name, some in (("a", texts[:5]), ("b", texts[5:])):
        capture_corpus(model, some, "blocks.1.resid_pre", tmp_path / name, chunk_bytes=40_000)
    merged = corpora.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (merged.kind, merged.count) == ("captured", len(texts))
    found, parts = Captured(tmp_path / "out"), [Captured(tmp_path / name) for name in "ab"]
    for number in range(len(texts)):
        part, at = (parts[0], number) if number < 5 else (parts[1], number - 5)
        assert found.ids(number).tolist() == texts[number]
        np.testing.assert_array_equal(found[number, "blocks.1.resid_pre"], part[at, "blocks.1.resid_pre"])
    with pytest.raises(ValueError, match="that several workers made, or a merged one"):
        capture_corpus(model, texts, "blocks.1.resid_pre", tmp_path / "out")


def test_lenses_merge(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lenses = [jacobian_lens.Lens(random.standard_normal((2, 3, 3)), 4, 5, 1, 8, "x") for _ in range(2)]
    for number, lens in enumerate(lenses):
        lens.save(tmp_path / f"{number}.lens")
    merged = corpora.merge([tmp_path / "0.lens", tmp_path / "1.lens"], tmp_path / "all.lens")
    assert (merged.kind, merged.count) == ("lens", 8)
    np.testing.assert_array_equal(jacobian_lens.load(tmp_path / "all.lens").total, lenses[0].total + lenses[1].total)


def test_a_dictionary_s_figures_merge(tmp_path: Path) -> None:
    model, sae = GPT2.from_pretrained(backend="numpy"), dictionaries.load("tales")
    texts = [model.tokenizer.encode(text)[:12] for text in TEXTS[:8]]
    for number in range(2):
        part = summed(model, sae, texts[number * 4 : number * 4 + 4], batch=4)
        sums.judged(model, sae, part).save(tmp_path / f"{number}.sums")
    merged = corpora.merge([tmp_path / "0.sums", tmp_path / "1.sums"], tmp_path / "all.sums")
    assert (merged.kind, merged.count) == ("figures", 8)
    found, whole = sums.load(tmp_path / "all.sums").evaluation, dictionaries.evaluate(model, sae, texts, batch=4)
    assert near(found.as_json(), whole.as_json())
    np.testing.assert_array_equal(found.density, whole.density)
    other = sums.Judged(sums.load(tmp_path / "0.sums").sums, "another", "x", sae.hook_name)
    other.save(tmp_path / "2.sums")
    with pytest.raises(ValueError, match="figures to merge must be of one model"):
        corpora.merge([tmp_path / "0.sums", tmp_path / "2.sums"], tmp_path / "x.sums")
    (tmp_path / "0.sums").write_bytes((tmp_path / "0.sums").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"0.sums is neither|0.sums holds no figures of a dictionary"):
        corpora.merge([tmp_path / "0.sums"], tmp_path / "x.sums")


def near(one: Any, other: Any) -> bool:
    """Whether nested objects hold the same names and, to rounding, the same numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[name], other[name]) for name in one)
    return one == pytest.approx(other, rel=1e-9)

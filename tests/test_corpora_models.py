"""A corpus's model: known by its files, planned with before it is loaded, and in memory once a machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2, corpora
from gpt2_np.corpora import captures, models
from gpt2_np.internals import capture

pytest.importorskip("pyarrow", reason="corpora are written as Parquet, which needs pyarrow")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("dtype", "backend"), [("float32", "numpy"), ("int8", "numpy"), ("float64", "numpy")])
def test_shared_weights_are_the_same(
    dtype: str, backend: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(models, "SMALL", 0)
    job = corpora.job.Job("score", str(small), dtype, backend, models.fingerprint(small), "text", "id", "row")
    plain, first, second = (models.load(job, share=share) for share in (False, True, True))
    ids = np.arange(10)
    for one in (first, second):
        np.testing.assert_array_equal(one(ids), plain(ids))
        assert all(models.is_mapped(array) for array in models.arrays(one.params) if array.nbytes > 1 << 20)
    made = list((tmp_path / "gpt2_np/weights").glob("*.safetensors"))
    assert len(made) == (0 if dtype == "float32" and all(map(models.is_mapped, models.arrays(plain.params))) else 1)
    for one in made:  # a damaged file counts as missing
        one.write_bytes(one.read_bytes()[:-100])
        np.testing.assert_array_equal(models.load(job, share=True)(ids), plain(ids))
    monkeypatch.setattr(models, "place", unwritable)
    np.testing.assert_array_equal(models.load(job, share=True)(ids), plain(ids))
    job = corpora.job.Job("score", str(small), dtype, backend, "another", "text", "id", "row")
    with pytest.raises(ValueError, match="holds another model here than where the run was started"):
        models.load(job, share=True)


def test_a_machine_reads_a_models_files_once(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    whole, read = models.digest_of, []
    monkeypatch.setattr(models, "digest_of", lambda paths: read.append(1) or whole(paths))
    first = models.fingerprint(folder)
    assert models.fingerprint(folder) == first
    assert len(read) == 2  # they were changed just now, and might be changed once more without a trace
    monkeypatch.setattr(models, "SETTLED", 0)
    assert [models.fingerprint(folder) for _ in range(3)] == [first] * 3
    assert len(read) == 3
    for kept in (tmp_path / "cache").rglob("*.digest"):  # a damaged file counts as missing
        kept.write_bytes(b"\xff")
    assert models.fingerprint(folder) == first
    weights = folder / "model.safetensors"
    times, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert models.fingerprint(folder) != first
    monkeypatch.setattr(models, "place", unwritable)
    assert models.fingerprint(folder) == whole([*models_files(folder)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tied", [True, False])
def test_captures_know_their_model_without_loading_it(
    dtype: str, tied: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small
    if not tied:
        folder = tmp_path / "untied"
        whole = GPT2.from_pretrained(small)
        whole.with_params(whole.params._replace(lm_head=whole.params.wte + np.float32(1))).save_pretrained(folder)
    expected = capture.fingerprint(GPT2.from_pretrained(folder, dtype=dtype, backend="numpy"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "SETTLED", 0)
    monkeypatch.setattr(GPT2, "from_pretrained", refuse)
    job = corpora.job.Job("capture", str(folder), dtype, "numpy", models.fingerprint(folder), "text", "id", "row")
    job.options.update(names=["embed"], store="float32")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        captures.begin(tmp_path / name, folder, job, 3)
        assert captures.read(tmp_path / name)["model"] == expected
        monkeypatch.setattr(models, "load_params", refuse)  # from then on the digest is known
    assert models.fingerprint(folder) != expected


def models_files(folder: Path) -> list[Path]:
    named = ("config.json", *models.hub.EXTRAS, *models.TOKENIZER)
    return [*(folder / name for name in named if (folder / name).is_file()), *models.files(folder)]


def test_a_run_is_planned_without_weights(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The king was old.\n")
    monkeypatch.setattr(GPT2, "from_pretrained", refuse)
    with pytest.raises(ValueError, match="stride"):
        corpora.score(path, tmp_path / "out", model=small, stride=10_000)
    with pytest.raises(ValueError, match="temperature"):
        corpora.generate(path, tmp_path / "out", model=small, options={"temperature": -1})
    with pytest.raises(ValueError, match="length must be between"):
        corpora.capture(path, tmp_path / "out", "*.resid_post", model=small, length=1)
    broken = tmp_path / "broken"
    shutil.copytree(small, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"n_layer": config["n_layer"] + 1}))
    with pytest.raises(ValueError, match=r"the weights don't fit config\.json"):
        corpora.score(path, tmp_path / "out", model=broken)
    assert not (tmp_path / "out").exists()


def unwritable() -> Path:
    raise PermissionError(13, "Permission denied", "/somewhere")


def refuse(*arguments: Any, **options: Any) -> None:
    raise AssertionError("a plan needs no weights")

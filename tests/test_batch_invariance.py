"""A position's logits have the same bits alone and in any batch, and however its text is cut: in every precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model, save

from gpt2_np.model.choices import DTYPES
from gpt2_np.session.model import Model

DTYPES = tuple(dtype for dtype in DTYPES if dtype != "float64")
ROWS, POSITIONS = (1, 2, 7, 40, 130, 1000), (1, 5, 40, 96, 97, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of odd widths with sharp attention: what rounds differently shows."""
    model = reference_model(n_embd=36, n_head=2, n_positions=300, initializer_range=0.5)
    return save(model, tmp_path_factory.mktemp("sharp"))


def models(folder: Path) -> dict[str, Model]:
    return {dtype: Model.from_pretrained(folder, dtype=dtype, backend="numba") for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_alone_and_in_any_batch(folder: Path, dtype: str) -> None:
    model = Model.from_pretrained(folder, dtype=dtype, backend="numba")
    ids = random_ids(1000, 300, seed=1)
    for T in POSITIONS:
        alone = {row: model(ids[row, :T]) for row in (0, 1, 6, 39, 129, 999)}
        for B in ROWS:
            if B * T > 15_000:
                continue
            batch = model(ids[:B, :T])
            for row in alone:
                if row < B:
                    np.testing.assert_array_equal(batch[row], alone[row], err_msg=f"row {row} of {B}, {T} positions")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_batches(folder: Path, dtype: str) -> None:
    model = Model.from_pretrained(folder, dtype=dtype, backend="numba")
    ids = random_ids(1000, 300, seed=1)
    for T in (96, 97, 300):
        batch = model(ids[:, :T])
        for row in (0, 500, 999):
            np.testing.assert_array_equal(batch[row], model(ids[row, :T]))


@given(cuts=st.sets(st.integers(1, 119), max_size=8), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_a_text_is_cut_anywhere(folder: Path, cuts: set[int], seed: int) -> None:
    ids = random_ids(3, 120, seed=seed)
    for model in models(folder).values():
        whole, session = model(ids), model.start(capacity=120)
        bounds = [0, *sorted(cuts), 120]
        parts = [session.feed_all(ids[:, a:b]) for a, b in pairwise(bounds)]
        for row in range(3):
            np.testing.assert_array_equal(np.concatenate([part[row] for part in parts]), whole[row])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_position_and_every_position(folder: Path, dtype: str) -> None:
    """What is left out where only the last logits are asked for changes none of them; nor do rows of other lengths."""
    model, ids = Model.from_pretrained(folder, dtype=dtype, backend="numba"), random_ids(5, 70, seed=2)
    lengths = (70, 1, 33, 70, 64)
    session = model.start(capacity=72)
    last = session.feed([row[:length] for row, length in zip(ids, lengths, strict=True)])
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(last[row], model(ids[row, :length])[-1])
    after = session.feed(ids[:, :1])
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(after[row], model(np.append(ids[row, :length], ids[row, 0]))[-1])


THREADS = """
import sys, zlib, numpy as np
from gpt2_np.session.model import Model
ids = np.arange(400).reshape(2, 200) % 60
for dtype in ("float32", "bfloat16", "int8", "int4"):
    model = Model.from_pretrained(sys.argv[1], dtype=dtype, backend="numba")
    print(zlib.crc32(model(ids).tobytes()), zlib.crc32(model(ids[:, :9]).tobytes()))
"""


def test_any_number_of_threads(folder: Path) -> None:
    results = {
        subprocess.run(
            [sys.executable, "-c", THREADS, str(folder)],
            env=os.environ | {"NUMBA_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 5)
    }
    assert len(results) == 1
    assert len(results.pop().split()) == 8


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_published_shape(tmp_path: Path, dtype: str) -> None:
    from safetensors.numpy import save_file

    from gpt2_np.model.config import Config
    from gpt2_np.model.params import shapes

    size = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}
    normal = np.random.default_rng(0).standard_normal
    tensors = {name: normal(shape, np.float32) * np.float32(0.1) for name, shape in shapes(Config(**size)).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(size))
    model, ids = Model.from_pretrained(tmp_path, dtype=dtype, backend="numba"), random_ids(130, 1024, seed=3)
    for B, T in ((2, 1024), (7, 40), (40, 5), (130, 15), (16, 128), (64, 32)):
        batch = model.start(capacity=T).feed(ids[:B, :T])
        for row in (0, B // 2, B - 1):
            np.testing.assert_array_equal(batch[row], model.start(capacity=T).feed(ids[row : row + 1, :T])[0])

"""Products in pieces on threads: NumPy's own numbers, and the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_np.gradients import products
from gpt2_np.system.threads import blas_threads

Array = np.ndarray
SHAPES = [(1, 1, 1), (3, 5, 7), (300, 64, 2000), (2000, 64, 300), (40, 800, 3000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_are_the_whole(shape: tuple[int, int, int], dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    R, inputs, C = shape
    random = np.random.default_rng(0)
    a, b = random.standard_normal((R, inputs)).astype(dtype), random.standard_normal((C, inputs)).astype(dtype).T
    bias, results = random.standard_normal(C).astype(dtype), []
    for threads in (1, 2, 5):
        monkeypatch.setattr(products, "threads", lambda threads=threads: threads)
        results.append(products.product(a, b, np.full((R, C), np.nan, dtype), bias))
    np.testing.assert_allclose(results[0], a @ b + bias, atol=1e-3 if dtype == np.float32 else 1e-12, rtol=0)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_blas_has_its_threads_again() -> None:
    before = blas_threads()
    products.product(np.ones((600, 900), np.float32), np.ones((900, 3000), np.float32), np.empty((600, 3000), "f"))
    assert blas_threads() == before

"""The matrix products of gradient runs: by BLAS in pieces, by AVX-512, and by AMX's tiles where the processor has
them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_np.engine.kernels import amx
from gpt2_np.engine.kernels.float32_parts import PARTS, SIDE, TERMS
from gpt2_np.gradients import products, products_compiled

halves = pytest.mark.skipif(not amx.HALVES, reason="this processor, or its system, has no AMX for bfloat16")
vectors = pytest.mark.skipif(not products_compiled.VECTORS, reason="this processor has neither AVX-512 nor AVX2")
every = pytest.mark.parametrize(
    "product",
    [
        products.product,
        products_compiled.product,
        pytest.param(products_compiled.by_vectors, marks=vectors),
        pytest.param(products_compiled.by_tiles, marks=halves),
    ],
)


def operands(R: int, K: int, C: int, left: bool, right: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices, (R, K) and (K, C), each row after row or column after column in memory."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((R, K), dtype=np.float32), rng.standard_normal((K, C), dtype=np.float32)
    return np.asfortranarray(a) if left else a, np.asfortranarray(b) if right else b


@every
@given(st.integers(1, 90), st.integers(1, 500), st.integers(1, 600), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_products(
    product: Callable[..., np.ndarray], R: int, K: int, C: int, left: bool, right: bool, biased: bool
) -> None:
    a, b = operands(R, K, C, left, right)
    bias = np.linspace(-1, 1, C, dtype=np.float32) if biased else None
    out = np.full((R, C), np.nan, np.float32)
    assert product(a, b, out, bias) is out
    truth = a.astype(np.float64) @ b + (0 if bias is None else bias)
    np.testing.assert_allclose(out, truth, atol=1e-5 * K**0.5)


@vectors
@pytest.mark.parametrize("columns", [64, 500])
def test_a_row_has_the_bits_that_it_has_alone(columns: int) -> None:
    a, b = operands(130, 700, columns, False, True)
    whole = products_compiled.by_vectors(a, b, np.empty((130, columns), np.float32))
    alone = products_compiled.by_vectors(a[77:78], b, np.empty((1, columns), np.float32))
    np.testing.assert_array_equal(whole[77:78], alone)


@vectors
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("R", "C"), [(1000, 40), (129, 33), (2000, 600)])
def test_a_result_that_is_transposed_has_the_same_bits(R: int, C: int, across: bool) -> None:
    a, b = operands(R, 900, C, True, across)
    swapped = products_compiled.by_vectors(a, b, np.full((R, C), np.nan, np.float32))
    direct = products_compiled.by_vectors(a, b, np.empty((R, C), np.float32), np.zeros(C, np.float32))
    np.testing.assert_array_equal(swapped, direct)


@vectors
def test_the_error_of_vectors_beside_that_of_blas() -> None:
    a, b = operands(128, 2000, 192, False, True)
    truth = a.astype(np.float64) @ b
    errors = [
        np.sqrt(np.mean((product(a, b, np.empty((128, 192), np.float32)) - truth) ** 2))
        for product in (products.product, products_compiled.by_vectors)
    ]
    assert errors[1] <= 1.1 * errors[0]


@halves
@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.8), (1.0, 1.0), (3.0, 2.0)])
def test_the_error_of_tiles_beside_that_of_blas(spread: float, share: float) -> None:
    """Against float64. Where few terms dominate a sum, each of the six products rounds it once more."""
    a, b = operands(128, 2000, 192, False, True)
    for x in (a, b):
        x *= np.exp(spread * np.random.default_rng(1).standard_normal(x.shape)).astype(np.float32)
    truth = a.astype(np.float64) @ b
    errors = [
        np.sqrt(np.mean((product(a, b, np.empty((128, 192), np.float32)) - truth) ** 2))
        for product in (products.product, products_compiled.product)
    ]
    assert errors[1] <= share * errors[0]


@every
@pytest.mark.parametrize("K", [500, 800])  # all terms at once, and some after some
def test_the_bits_are_the_same_for_any_number_of_threads(
    product: Callable[..., np.ndarray], K: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = operands(200, K, 1500, True, False)
    found = []
    for workers in (1, 2, 3, 7):
        for module in (products, products_compiled):
            monkeypatch.setattr(module, "threads", lambda workers=workers: workers)
        found.append(product(a, b, np.empty((200, 1500), np.float32)))
    assert all((one == found[0]).all() for one in found)


@halves
def test_the_ends_of_float32() -> None:
    """Large and small numbers are exact as long as the third parts aren't below float32's normal range."""
    a, b = np.zeros((64, 64), np.float32), np.eye(64, dtype=np.float32)
    a[0], a[1], a[2, 3], a[3, 4] = 3.3e38, -1.2345678e-20, np.nan, np.inf
    a = np.concatenate([a, np.zeros((2000, 64), np.float32)])
    out = products_compiled.product(a, b, np.empty((len(a), 64), np.float32))
    np.testing.assert_array_equal(out[:2], a[:2])
    assert np.isnan(out[2]).all()
    assert not np.isfinite(out[3]).any()
    assert not out[4:].any()


@halves
@given(st.integers(1, 60000), st.integers(1, 60000), st.integers(1, 60000), st.integers(1, 16))
def test_what_is_packed_fits(R: int, K: int, C: int, workers: int) -> None:
    from gpt2_np.engine.kernels import float32_tiles as tiles  # compiled for AMX when it is imported

    terms, most = tiles.blocks(R, K, C)
    assert terms % TERMS == 0
    division = products_compiled.Division(2 * amx.ROWS, packed=64, either=most)
    for rows, columns in products_compiled._pieces(R, C, division, workers):
        fewer = min(rows.stop - rows.start, columns.stop - columns.start)
        panels = -(-fewer // SIDE) + 1  # those that stay, and the one that passes by
        assert panels * SIDE * min(terms, -(-K // TERMS) * TERMS) * PARTS <= tiles.SCRATCH


@pytest.mark.parametrize("limits", [{"whole": 32, "either": 512}, {"whole": 64, "rows": 512}, {"whole": 64}])
@pytest.mark.parametrize("workers", [1, 2, 5, 16])
@pytest.mark.parametrize(("R", "C"), [(1, 1), (256, 768), (768, 3072), (50257, 768), (256, 50257), (33, 513)])
def test_pieces_cover_the_result_once(R: int, C: int, workers: int, limits: dict[str, int]) -> None:
    seen, division = np.zeros((R, C), np.int8), products_compiled.Division(packed=16, **limits)
    for rows, columns in products_compiled._pieces(R, C, division, workers):
        assert columns.start % division.whole == 0
        assert rows.start % division.whole == 0
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert height <= limits.get("rows", height)
        assert min(height, width) <= limits.get("either", height)
        seen[rows, columns] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("R", "K", "C"), [(20, 3072, 768), (20, 768, 3072), (512, 768, 768), (768, 512, 768)])
def test_large_products_are_divided(R: int, K: int, C: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are no wider than one piece: a product of one piece leaves every other core idle."""
    divided = []
    monkeypatch.setattr(products, "threads", lambda: 2)
    monkeypatch.setattr(products, "on_threads", lambda work, pieces, workers: divided.extend(pieces))
    products.product(*operands(R, K, C, False, False), np.empty((R, C), np.float32))
    assert len(divided) % 2 == 0
    assert len(divided) > 0

"""What the kernels' innermost steps say in NumPy, against the instructions they become: one body, run both ways."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest

from gpt2_np import kernels
from gpt2_np.kernels import dots, fused, int4, streaming
from gpt2_np.kernels.product import kernel
from gpt2_np.quantize import REDUCED, quantize_matrix


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def whole(low: int, high: int, dtype: type, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def both_ways(body: Callable[..., None], *arguments) -> tuple[np.ndarray, np.ndarray]:
    """What a body writes into its last argument, in plain Python and compiled."""
    results = []
    for run in (body, numba.njit(body)):
        out = arguments[-1].copy()
        run(*arguments[:-1], out)
        results.append(out)
    return results[0], results[1]


def outer(x, weight, packed, sums):
    tile = streaming.load_tile(sums, 1, 2)
    for i in range(5):
        streaming.keep(packed, i, weight, i + 1, 3)
        tile = streaming.add_outer(tile, x, 2, i, packed, i, 0)
        tile = streaming.add_outer(tile, x, 2, i, weight, i, 4)
    streaming.store_tile(tile, sums, 1, 2)
    streaming.fetch(weight, 1, 2)
    streaming.store_tile(streaming.no_sums(), sums, 1 + streaming.ROWS, 2)


def test_a_tile_of_sums() -> None:
    rows, width = streaming.ROWS, streaming.WIDTH
    x, weight = normal(rows + 2, 5), normal(7, width + 5, seed=1)
    sums = normal(1 + 2 * rows, width + 3, seed=2)
    plain, compiled = both_ways(outer, x, weight, np.empty((5, width), np.float32), sums)
    truth = sums.copy()
    for i in range(5):
        truth[1 : 1 + rows, 2:-1] += np.outer(x[2:, i], weight[i + 1, 3 : 3 + width] + weight[i, 4 : 4 + width])
    truth[1 + rows :, 2:-1] = 0
    np.testing.assert_allclose(plain, truth, atol=1e-5)
    np.testing.assert_allclose(compiled, truth, atol=1e-5)


def few_inputs(x, weight, sums):
    streaming.ask_ahead(weight, 7)
    streaming.add_inputs(streaming.load_weights(weight, 1, 2), x, 1, 3, sums, 2)


def test_few_inputs_of_a_row() -> None:
    k, f = streaming.INPUTS, streaming.SHARE
    x, weight, sums = normal(3, k + 5), normal(k + 2, f + 3, seed=1), normal(3, f + 4, seed=2)
    truth = sums.copy()
    truth[1, 2:-2] += x[1, 3 : 3 + k] @ weight[1 : 1 + k, 2:-1]
    for result in both_ways(few_inputs, x, weight, sums):
        np.testing.assert_allclose(result, truth, atol=1e-5)


def one_row(x, codes, totals):
    sums = dots.no_sums(codes)
    dots.fetch(sums, codes, 1, 0)
    for d in range(0, codes.shape[1], dots.step(codes)):
        sums = dots.add_products(sums, x, 1, codes, 1, d)
    dots.store_totals(sums, totals)


def some_rows(x, codes, totals):
    sums = dots.no_sums_of_rows(codes)
    for d in range(0, codes.shape[1], dots.step(codes)):
        sums = dots.add_products(sums, x, 1, codes, 1, d)
    dots.store_totals(sums, totals)


def outputs_alone(x, codes, totals):
    sums = dots.no_sums_alone(codes)
    for d in range(0, codes.shape[1], dots.step(codes)):
        dots.fetch(sums, codes, 1, d)
        sums = dots.add_products(sums, x, 1, codes, 1, d)
    dots.store_totals(sums, totals)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("body", "rows", "outputs"),
    [(one_row, 1, dots.FOUR), (some_rows, dots.TOGETHER, dots.FOUR), (outputs_alone, 1, dots.ALONE)],
    ids=["one", "some", "alone"],
)
def test_dot_products(dtype: str, body: Callable[..., None], rows: int, outputs: int) -> None:
    x, weights = normal(rows + 1, 96), normal(outputs + 1, 96, seed=1)
    truth = x[1:].astype(np.float64) @ weights[1:].T.astype(np.float64)
    if dtype == "bfloat16":
        weights = quantize_matrix(weights.T, dtype).codes
        truth = x[1:] @ ((weights[1:].astype(np.uint32) << 16).view(np.float32)).T
    if dtype == "int8":
        x, weights = whole(-16383, 16384, np.int16, rows + 1, 96), whole(-127, 128, np.int8, outputs + 1, 96)
        truth = x[1:].astype(np.int64) @ weights[1:].T.astype(np.int64)
    totals = np.zeros((rows, outputs), np.int32 if dtype == "int8" else np.float32)
    for result in both_ways(body, x, weights, totals):
        np.testing.assert_allclose(result, truth, atol=0 if dtype == "int8" else 2e-5)


def a_group(levels, codes, scales, out):
    whole = int4.all_alike(levels[0, 0])
    for j in range(16):
        whole = int4.add_pair(whole, levels, 1, 2 * j, codes, 0, 1, j)
    int4.put(int4.add_group(int4.no_totals(), whole, np.float32(0.5), np.float32(-3), scales, 0, 1), out)


def test_a_group_of_four_bit_weights() -> None:
    levels = whole(-127, 128, np.int16, 2, 32)
    codes = whole(0, 256, np.uint8, 1, 2, 16, int4.TILE)
    scales = quantize_matrix(normal(1, 2 * 2 * int4.TILE), "bfloat16").codes.reshape(1, 2, 2, int4.TILE)
    plain, compiled = both_ways(a_group, levels, codes, scales, np.zeros(int4.TILE, np.float32))
    np.testing.assert_allclose(compiled, plain, rtol=2e-5, atol=1e-3)
    assert (plain != 0).all()


@pytest.mark.parametrize(("D", "F"), [(7, 5), (33, 3), (96, 50), (70, 331), (768, 97), (100, 64)])
@pytest.mark.parametrize("dtype", ["float32", *REDUCED])
def test_a_row_gets_the_same_bits_in_any_company(dtype: str, D: int, F: int) -> None:
    x, weight, bias = normal(kernels.FEW, D), normal(D, F, seed=1), normal(F, seed=2)
    matrix = weight if dtype == "float32" else quantize_matrix(weight, dtype)
    head = np.ascontiguousarray(weight.T) if dtype == "float32" else matrix
    alone = [kernels.linear(row[None], matrix, bias)[0] for row in x]
    last = [kernels.unembed(row[None], head)[0] for row in x]
    for rows in (2, 3, 4, 5, 6, 7, 8, 13, kernels.FEW):
        np.testing.assert_array_equal(kernels.linear(x[:rows], matrix, bias), alone[:rows])
        np.testing.assert_array_equal(kernels.unembed(x[-rows:], head), last[-rows:])


def layers(first, addresses, out):
    for layer in range(len(addresses)):
        vector, matrix = fused.of_layer(first, addresses, layer)
        out[layer, 0] = vector.sum()
        out[layer, 1] = matrix[1, 2]


def test_arrays_like_those_of_the_first_layer() -> None:
    vectors = [normal(5, seed=seed) for seed in range(3)]
    matrices = [normal(2, 3, seed=seed) for seed in range(3)]
    addresses = np.array([[a.ctypes.data, b.ctypes.data] for a, b in zip(vectors, matrices, strict=True)], np.int64)
    for result in both_ways(layers, (vectors[0], matrices[0]), addresses, np.zeros((3, 2), np.float32)):
        np.testing.assert_allclose(result, [[a.sum(), b[1, 2]] for a, b in zip(vectors, matrices, strict=True)], 1e-6)


def test_a_kernel_is_found_by_the_dtype_of_the_codes() -> None:
    assert {kernel(code).__name__ for code in "fHbB"} == {"float32_rows", "bfloat16_rows", "int8_rows", "int4_tiles"}

"""What the kernels' innermost steps say in NumPy, against the instructions they become: one body, run both ways."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest

from gpt2_np import kernels
from gpt2_np.kernels import digits, dots, fused, int4
from gpt2_np.kernels.product import kernel
from gpt2_np.kernels.registers import BYTES
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


def alone(x, codes, totals):
    totals[0, 0] = dots.dot(x, 1, codes, 1, 3, codes.shape[1])


def in_turn(x, codes, totals):
    totals[0, 0] = dots.dot_in_turn(x, 1, codes, 1, 3, codes.shape[1])


def some_outputs(x, codes, totals):
    dots.dots_of_row(x, 1, codes, 1, 3, codes.shape[1], totals)


def some_rows(x, codes, totals):
    dots.dots_of_rows(x, 1, codes, 1, 3, codes.shape[1], totals)


@pytest.mark.parametrize("D", [3, 4, 40, 67, 100, 131])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("body", "rows", "outputs"),
    [(alone, 1, 1), (in_turn, 1, 1), (some_outputs, 1, dots.SOME), (some_rows, dots.ROWS, dots.SOME)],
)
def test_dot_products(dtype: str, body: Callable[..., None], rows: int, outputs: int, D: int) -> None:
    x, weights = normal(rows + 1, D), normal(outputs + 1, D, seed=1)
    truth = x[1:, 3:].astype(np.float64) @ weights[1:, 3:].T.astype(np.float64)
    if dtype == "bfloat16":
        weights = quantize_matrix(weights.T, dtype).codes
        truth = x[1:, 3:] @ ((weights[1:, 3:].astype(np.uint32) << 16).view(np.float32)).T
    if dtype == "int8":
        x, weights = whole(-16383, 16384, np.int16, rows + 1, D), whole(-127, 128, np.int8, outputs + 1, D)
        truth = x[1:, 3:].astype(np.int64) @ weights[1:, 3:].T.astype(np.int64)
    totals = np.ones((rows, outputs), np.int32 if dtype == "int8" else np.float32)
    for result in both_ways(body, x, weights, totals):
        np.testing.assert_allclose(result, truth, atol=0 if dtype == "int8" else 2e-5)


def in_digits(levels, codes, split_up, totals):
    digits.split(levels, split_up)
    for r in range(len(levels)):
        for f in range(len(codes)):
            totals[r, f] = digits.dot(split_up, r, codes, f)


@pytest.mark.parametrize("D", [1, 64, 200, 3000])
def test_dot_products_in_digits_are_exact(D: int) -> None:
    levels, codes = whole(-16383, 16384, np.int16, 3, D), whole(-127, 128, np.int8, 2, D)
    levels[0], codes[0] = 16383, 127  # the largest sums there can be
    truth = (levels.astype(np.int64) + digits.OFFSET) @ codes.T.astype(np.int64)
    split_up, totals = np.empty((3, 2, D), np.uint8), np.zeros((3, 2), np.int64)
    in_digits(levels, codes, split_up, totals)
    np.testing.assert_array_equal(totals, truth)
    if not BYTES:
        pytest.skip("this processor has no instruction that multiplies bytes; int8 goes another way here")
    numba.njit(in_digits)(levels, codes, split_up, totals)
    np.testing.assert_array_equal(totals, truth)


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

"""What the kernels' innermost steps say in NumPy, against the instructions they become: one body, run both ways."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest

from gpt2_np.engine import kernels
from gpt2_np.engine.kernels import causal, digits, dots, int4, tables
from gpt2_np.engine.kernels.product import kernel
from gpt2_np.engine.kernels.registers import BYTES
from gpt2_np.weights.quantize import REDUCED, quantize_matrix


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


def near(x, codes, totals):
    totals[0, 0] = dots.dot_near(x, 1, codes, 1, 3, codes.shape[1])


def some_outputs(x, codes, totals):
    dots.dots_of_row(x, 1, codes, 1, 3, codes.shape[1], totals)


def some_rows(x, codes, totals):
    dots.dots_of_rows(x, 1, codes, 1, 3, codes.shape[1], totals)


@pytest.mark.parametrize("D", [3, 4, 40, 67, 100, 131])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("body", "rows", "outputs"),
    [(alone, 1, 1), (in_turn, 1, 1), (near, 1, 1), (some_outputs, 1, dots.SOME), (some_rows, dots.ROWS, dots.SOME)],
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


def a_long_row(x, codes, totals):
    dots.dots_together(x, 1, codes, 1, 3, codes.shape[1], totals)


@pytest.mark.parametrize("D", [3, 4, 40, 67, 131])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dot_products_of_a_long_row(dtype: str, D: int) -> None:
    x, weights = normal(2, D), normal(7, D, seed=1)
    codes = weights if dtype == "float32" else quantize_matrix(weights.T, dtype).codes
    outputs = dots.together(codes)
    alone = np.array([dots.dot(x, 1, codes, 1 + f, 3, D) for f in range(outputs)])
    for result in both_ways(a_long_row, x, codes, np.ones(outputs, np.float32)):
        np.testing.assert_allclose(result, alone, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_row_gets_the_same_bits_in_any_company(dtype: str) -> None:
    D, F = dots.LONG // (4 if dtype == "float32" else 2), 67
    x, weight, bias = normal(kernels.FEW, D), normal(D, F, seed=1), normal(F, seed=2)
    matrix = weight if dtype == "float32" else quantize_matrix(weight, dtype)
    alone = kernels.linear(x[:1], matrix, bias)[0]
    np.testing.assert_allclose(alone, x[0] @ (weight if dtype == "float32" else matrix.dequantize()) + bias, atol=1e-3)
    for rows in (2, 3, 4, 7, kernels.FEW):
        np.testing.assert_array_equal(kernels.linear(x[:rows], matrix, bias)[0], alone)


def a_mean(w, values, following, out):
    causal.weighted_mean(w, values, len(w), following, out)


@pytest.mark.parametrize("K", [1, 8, 16, 40, 64, 80, 131])
@pytest.mark.parametrize("S", [1, 3, 100])
def test_weighted_means(S: int, K: int) -> None:
    w, values = np.exp(normal(S)), normal(S + 2, K, seed=1)
    for result in both_ways(a_mean, w, values, values, np.zeros(K, np.float32)):
        np.testing.assert_allclose(result, np.average(values[:S].astype(np.float64), axis=0, weights=w), atol=2e-6)


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


def norms(table, out):
    for n in range(len(table)):
        arrays = tables.layer("H", table, n)
        out[n, 0], out[n, 1], out[n, 2] = arrays[0][1, 0, 2, 1], arrays[2].sum(), arrays[4][1, 2]


def beside(table, out):
    arrays = tables.others("b", table, 0)
    out[0, 0], out[0, 1], out[0, 2] = arrays[1][1, 2], arrays[4][1, 2], arrays[9][1]


def like(kind, seed: int) -> np.ndarray:
    """An array of this kind, of 2, 3, 4 … numbers along its axes."""
    return whole(0, 100, np.dtype(str(kind.dtype)).type, *range(2, 2 + kind.ndim), seed=seed)


def test_arrays_found_by_a_table() -> None:
    layers = [tuple(like(kind, seed) for kind in tables.layer_arrays("H")) for seed in range(3)]
    expected = [[k[1, 0, 2, 1], weight.sum(), codes[1, 2]] for k, _, weight, _, codes, *_ in layers]
    for result in both_ways(norms, tables.table(layers), np.zeros((3, 3), np.float32)):
        np.testing.assert_array_equal(result, expected)
    others = tuple(like(kind, 0) for kind in tables.other_arrays("b"))
    for result in both_ways(beside, tables.table([others]), np.zeros((1, 3), np.float32)):
        np.testing.assert_array_equal(result, [[others[1][1, 2], others[4][1, 2], others[9][1]]])


def test_a_kernel_is_found_by_the_dtype_of_the_codes() -> None:
    assert {kernel(code).__name__ for code in "fHbB"} == {"float32_rows", "bfloat16_rows", "int8_rows", "int4_tiles"}


SAME = """
import hashlib

import numpy as np

from gpt2_np.engine import kernels
from gpt2_np.weights.quantize import quantize_matrix

normal = np.random.default_rng(0).standard_normal
q, k, v = (normal((1, *shape), np.float32) for shape in ((64, 2, 64), (2, 200, 64), (2, 200, 64)))
results = [kernels.attention(q, k, v, np.array([100]), 0.125)]
for rows in (1, 7):
    x, weight, bias = normal((rows, 768), np.float32), normal((768, 100), np.float32), np.zeros(100, np.float32)
    for matrix in (weight, *(quantize_matrix(weight, dtype) for dtype in ("bfloat16", "int8", "int4"))):
        results.append(kernels.linear(x, matrix, bias))
print([hashlib.sha256(result.tobytes()).hexdigest() for result in results])
"""


def test_whoever_compiles_gets_the_bits_of_those_who_find_it_compiled(tmp_path: Path) -> None:
    # Numba compiles a parallel loop once for the process that asks, and once more for the file that others load.
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", SAME], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second

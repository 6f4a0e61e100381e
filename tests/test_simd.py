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
from kernel_bodies import both_ways, normal, whole

from gpt2_np.engine import kernels
from gpt2_np.engine.kernels import (
    address_tables,
    amx,
    bfloat16_tiles,
    byte_products,
    dot_products,
    exponential,
    float32_steps,
    int8_vectors,
    table_arrays,
)
from gpt2_np.engine.kernels.panel_passes import lines_to_prefetch
from gpt2_np.engine.kernels.product import kernel
from gpt2_np.model import ops
from gpt2_np.weights.panels import TILE, packed
from gpt2_np.weights.quantize import REDUCED, quantize_matrix

tiles = pytest.mark.skipif(not amx.TILES, reason="this processor, or its system, has no AMX")
halves = pytest.mark.skipif(not amx.HALVES, reason="this processor, or its system, has no AMX for bfloat16")


def alone(x, y, totals):
    totals[0, 0] = dot_products.dot(x, 1, y, 1, 3, y.shape[1])


@pytest.mark.parametrize("D", [3, 4, 40, 67, 100, 131])
def test_a_dot_product(D: int) -> None:
    x, y = normal(2, D), normal(2, D, seed=1)
    truth = x[1, 3:].astype(np.float64) @ y[1, 3:].astype(np.float64)
    for result in both_ways(alone, x, y, np.ones((1, 1), np.float32)):
        np.testing.assert_allclose(result[0, 0], truth, atol=2e-5)


OF_A_PANEL = [(TILE, TILE, *step) for step in float32_steps.STEPS.items()]
OF_ITS_BEGINNING = [(float32_steps.NARROW, float32_steps.WIDTH, *step) for step in float32_steps.NARROW_STEPS.items()]


@pytest.mark.parametrize(("columns", "width", "rows", "step"), OF_A_PANEL + OF_ITS_BEGINNING)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_a_panel(dtype: str, columns: int, width: int, rows: int, step: Callable[..., None]) -> None:
    x, weight = normal(rows + 1, 50), normal(50, 2 * TILE, seed=1)
    matrix = packed(weight) if dtype == "float32" else quantize_matrix(weight, dtype)
    codes = matrix.codes[..., :width].copy()
    last = codes[:, 20 // (1 if dtype == "float32" else 2) :].copy()  # a panel of the last inputs alone

    def body(x, weights, last, out):
        step(x, 1, 0, weights, 1, 0, 20, 4, 9, 2, out, 3)
        step(x, 1, 0, weights, 1, 20, 40, 4, 9, 1, out, 3)
        step(x, 1, 20, last, 1, 20, 30, 4, 9, 1, out, 3)

    truth = np.ones((rows + 2, TILE + 3), np.float32)
    truth[1:-1, 3 : 3 + columns] = x[1:] @ matrix.dequantize()[:, TILE : TILE + columns]
    for result in both_ways(body, x, codes, last, np.ones_like(truth)):
        np.testing.assert_allclose(result, truth, atol=2e-5)


@pytest.mark.parametrize("rows", sorted(int8_vectors.STEPS))
def test_a_panel_of_bytes_is_exact(rows: int) -> None:
    D = 200
    matrix, step = quantize_matrix(normal(D, 2 * TILE), "int8"), int8_vectors.STEPS[rows]
    levels = whole(-16383, 16384, np.int16, rows, D)
    levels[0] = 16383  # the largest sums there can be
    in_digits, steps = np.empty((rows, 2, D), np.uint8), normal(rows, seed=1)
    for row, mine in zip(levels, in_digits, strict=True):
        byte_products.split(row, *mine)
    scale, bias = matrix.scales[0, TILE:].copy(), normal(TILE, seed=2)
    moved = matrix.scales[1, TILE:] * np.float32(byte_products.OFFSET)

    def body(of_bytes, codes, scale, moved, bias, steps, out):
        step(of_bytes, 0, codes, 1, 4, 9, 2, steps, scale, moved, bias, out, 3)

    codes = np.rint(matrix.dequantize()[:, TILE:] / scale).astype(np.int64)
    truth = (levels.astype(np.int64) @ codes).astype(np.float32) * (scale * steps[:, None]) + bias
    arguments = (in_digits, matrix.codes, scale, moved, bias, steps, np.zeros((rows, TILE + 3), np.float32))
    for result in both_ways(body, *arguments):
        np.testing.assert_allclose(result[:, 3:], truth, rtol=3e-7, atol=1e-6)


def split(levels, out):
    byte_products.split(levels, out[0], out[1])


@pytest.mark.parametrize("D", [1, 15, 32, 64, 131])
def test_integers_are_split_into_bytes(D: int) -> None:
    levels = whole(-16383, 16384, np.int16, D)
    levels[0] = -16383
    for higher, lower in both_ways(split, levels, np.full((2, D + 3), 9, np.uint8)):
        numbers = higher[:D].astype(int) * 256 + lower[:D] - byte_products.OFFSET
        np.testing.assert_array_equal(numbers, levels)
        assert (higher[D:] == 9).all()
        assert (lower[D:] == 9).all()


@tiles
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_a_panel_of_bytes_in_tiles_is_exact(rows: int) -> None:
    from gpt2_np.engine.kernels import int8_tiles  # compiled for AMX when it is imported

    D, R = 192, 16 + rows  # the second tile's rows
    matrix = quantize_matrix(normal(D, 2 * TILE), "int8")
    levels = whole(-16383, 16384, np.int16, R, D)
    levels[16] = 16383  # the largest sums there can be
    in_tiles, steps = np.empty(R * 2 * D, np.uint8), normal(R, seed=1)
    for r, level in enumerate(levels):
        int8_tiles.put_in_tiles(level, in_tiles, r, R)
    scale, bias = matrix.scales[0, TILE:].copy(), normal(TILE, seed=2)
    moved = matrix.scales[1, TILE:] * np.float32(byte_products.OFFSET)

    def body(in_tiles, codes, scale, moved, bias, steps, out):
        amx.configure(rows, int8_tiles.WEIGHTS)
        int8_tiles.some_rows(in_tiles, 16, rows, codes, 1, 4, 2, steps, scale, moved, bias, out, 3)
        amx.release()

    codes = np.rint(matrix.dequantize()[:, TILE:] / scale).astype(np.int64)
    truth = (levels.astype(np.int64) @ codes).astype(np.float32) * (scale * steps[:, None]) + bias
    arguments = (in_tiles, matrix.codes, scale, moved, bias, steps, np.zeros((R, TILE + 3), np.float32))
    for result in both_ways(body, *arguments):
        np.testing.assert_allclose(result[16:, 3:], truth[16:], rtol=3e-7, atol=1e-6)
        assert not result[:16].any()


@halves
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_a_panel_of_bfloat16_in_tiles(rows: int) -> None:
    D, R = 100, 16 + rows  # the second tile's rows
    x, matrix, bias = normal(R, D), quantize_matrix(normal(D, 2 * TILE, seed=1), "bfloat16"), normal(TILE, seed=2)
    rounded = np.empty(R * 128, np.uint16)
    bfloat16_tiles.tiles_of_rows(x, rounded)

    def body(rounded, codes, bias, out):
        amx.configure(rows, bfloat16_tiles.WEIGHTS)
        bfloat16_tiles.some_rows(rounded, 16, rows, codes, 1, 0, 64, 4, 2, bias, out, 3)
        bfloat16_tiles.some_rows(rounded, 16, rows, codes, 1, 64, 128, 4, 2, bias, out, 3)
        amx.release()

    truth = ops.to_bfloat16(x).astype(np.float64) @ matrix.dequantize()[:, TILE:].astype(np.float64) + bias
    for result in both_ways(body, rounded, matrix.codes, bias, np.zeros((R, TILE + 3), np.float32)):
        np.testing.assert_allclose(result[16:, 3:], truth[16:], atol=1e-5)
        assert not result[:16].any()


@pytest.mark.parametrize(("R", "most"), [(7, 6), (64, 6), (5, 3), (3, 2)])
@pytest.mark.parametrize(("lines", "each"), [(1024, 4), (40, 2), (12, 4)])
def test_the_next_block_is_prefetched_once(R: int, most: int, lines: int, each: int) -> None:
    """Together, the passes of a block prefetch each line of the block behind it, at a pace that their steps allow."""
    asked = []
    for r in range(0, R, most):
        first, last, pace = lines_to_prefetch(r, min(most, R - r), R, most, lines, each)
        asked += list(range(first, last))
        assert last - first <= pace * (lines // each)
    assert asked == list(range(lines, 2 * lines))


def terms(scores, out):
    out[1, 0] = exponential.largest(scores, 1, scores.shape[1])
    out[1, 1] = exponential.exp_and_sum(scores, 1, scores.shape[1], out[1, 0], out, 0)


@pytest.mark.parametrize("S", [2, 8, 16, 31, 100])
def test_softmax_s_terms_and_their_sum(S: int) -> None:
    scores = 20 * normal(2, S)
    truth = np.exp(scores[1].astype(np.float64) - scores[1].max())
    for result in both_ways(terms, scores, np.zeros((2, S), np.float32)):
        np.testing.assert_allclose(result[0], truth, rtol=3e-6, atol=1e-12)
        np.testing.assert_allclose(result[1, :2], [scores[1].max(), truth.sum()], rtol=3e-6)


def activated(x, out):
    exponential.gelu_row(x, 1, out)


@pytest.mark.parametrize("F", [1, 8, 16, 31, 100])
def test_gelu_of_a_row(F: int) -> None:
    x = 4 * normal(2, F)
    for result in both_ways(activated, x, np.zeros((2, F), np.float32)):
        np.testing.assert_allclose(result[1], ops.gelu_new(x[1].astype(np.float64)), atol=2e-6)


def test_a_number_gets_the_same_bits_in_a_vector_as_alone() -> None:
    x = 4 * normal(2, 31)
    whole, single, row = np.zeros((2, 31), np.float32), np.zeros((2, 1), np.float32), numba.njit(activated)
    row(x, whole)
    for d in range(31):
        row(np.ascontiguousarray(x[:, d : d + 1]), single)
        assert single[1, 0] == whole[1, d]


@pytest.mark.parametrize(("D", "F"), [(7, 5), (33, 3), (96, 50), (70, 331), (768, 97), (100, 64), (127, 40), (61, 20)])
@pytest.mark.parametrize("dtype", ["float32", *REDUCED])
def test_a_row_gets_the_same_bits_in_any_company(dtype: str, D: int, F: int) -> None:
    x, weight, bias = normal(200, D), normal(D, F, seed=1), normal(F, seed=2)
    matrix = head = packed(weight) if dtype == "float32" else quantize_matrix(weight, dtype)
    alone = np.array([kernels.linear(row[None], matrix, bias)[0] for row in x])
    last = np.array([kernels.unembed(row[None], head)[0] for row in x])
    for rows in (2, 3, 4, 5, 6, 7, 8, 13, 97, 200):
        np.testing.assert_array_equal(kernels.linear(x[:rows], matrix, bias), alone[:rows])
        np.testing.assert_array_equal(kernels.unembed(x[-rows:], head), last[-rows:])


def norms(table, out):
    for n in range(len(table)):
        arrays = table_arrays.layer("I", table, n)
        out[n, 0], out[n, 1], out[n, 2] = arrays[0][1, 0, 2, 1], arrays[2].sum(), arrays[4][1, 2, 3]


def beside(table, out):
    arrays = table_arrays.others("b", table, 0)
    out[0, 0], out[0, 1], out[0, 2] = arrays[1][1, 2], arrays[4][1, 2, 3, 4], arrays[9][1]


def like(kind, seed: int) -> np.ndarray:
    """An array of this kind, of 2, 3, 4 … numbers along its axes."""
    return whole(0, 100, np.dtype(str(kind.dtype)).type, *range(2, 2 + kind.ndim), seed=seed)


def test_arrays_found_by_a_table() -> None:
    layers = [tuple(like(kind, seed) for kind in table_arrays.layer_arrays("I")) for seed in range(3)]
    expected = [[k[1, 0, 2, 1], weight.sum(), codes[1, 2, 3]] for k, _, weight, _, codes, *_ in layers]
    for result in both_ways(norms, address_tables.address_table(layers), np.zeros((3, 3), np.float32)):
        np.testing.assert_array_equal(result, expected)
    others = tuple(like(kind, 0) for kind in table_arrays.other_arrays("b"))
    for result in both_ways(beside, address_tables.address_table([others]), np.zeros((1, 3), np.float32)):
        np.testing.assert_array_equal(result, [[others[1][1, 2], others[4][1, 2, 3, 4], others[9][1]]])


def test_a_kernel_is_found_by_the_dtype_of_the_codes() -> None:
    assert {getattr(kernel(code), "__name__", "") for code in "fIbB"} == {
        "float32_panels",
        "bfloat16_panels",
        "int8_panels",
        "int4_panels",
    }


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
    for matrix in (weight, quantize_matrix(weight, "int8")):
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

"""int8 products by pairs of 16-bit integers, as processors without VNNI compute them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_bodies import both_ways, normal, whole

from gpt2_np.engine.kernels import int8_pairs, int8_vectors
from gpt2_np.weights.panels import TILE, Matrix
from gpt2_np.weights.quantize import quantize_matrix

OUTPUTS = int8_pairs.OUTPUTS
ORDER = (0, 2, 1, 3)  # of the inputs in a group of four


def extreme(D: int, F: int) -> Matrix:
    """An int8 matrix whose first two outputs have the largest codes there are, of either sign."""
    weight = normal(D, F)
    weight[:, :2] = 9, -9
    return quantize_matrix(weight, "int8")


def test_weights_are_widened_to_pairs() -> None:
    codes = extreme(12, 2 * TILE).codes

    def body(codes, block):
        int8_pairs.widen(codes, 1, 1, block, 2)

    for block in both_ways(body, codes, np.full((TILE // OUTPUTS, 6, OUTPUTS, 2), 5, np.int16)):
        assert (block[:, [0, 1, 4, 5]] == 5).all()  # nothing else is written
        four = block[:, 2:4].transpose(1, 3, 0, 2).reshape(4, TILE)  # inputs 0, 2, 1, 3
        np.testing.assert_array_equal(four[list(ORDER)].T, codes[1, 1])


@pytest.mark.parametrize("rows", sorted(int8_pairs.STEPS))
@pytest.mark.parametrize("fresh", [True, False])
def test_a_pass_over_a_widened_block_is_exact(rows: int, fresh: bool) -> None:
    pairs, step = 5, int8_pairs.STEPS[rows]
    levels, last = whole(-16383, 16384, np.int16, rows + 1, 2 * pairs + 4), TILE // OUTPUTS - 1
    block = whole(-127, 128, np.int16, TILE // OUTPUTS, pairs + 1, OUTPUTS, 2, seed=1)

    def body(levels, block, sums):
        step(levels, 1, 4, block, last, pairs, fresh, sums, 1)

    before = whole(-1000, 1000, np.int32, rows + 2, TILE, seed=2)
    truth = before.copy()
    some = levels[1:, 4:].astype(np.int64) @ block[last, :pairs].transpose(0, 2, 1).reshape(-1, OUTPUTS)
    truth[1 : rows + 1, last * OUTPUTS :] = some + (0 if fresh else before[1 : rows + 1, last * OUTPUTS :])
    for result in both_ways(body, levels, block, before):
        np.testing.assert_array_equal(result, truth)


def test_a_row_by_itself_is_exact() -> None:
    codes, levels = extreme(24, 2 * TILE).codes, whole(-16383, 16384, np.int16, 1, 24)

    def body(levels, codes, sums):
        int8_pairs.one_row(levels, codes, 1, 1, 5, sums)

    some = levels[0].astype(np.int64).reshape(-1, 4)[1:5][:, list(ORDER)]
    truth = np.einsum("dk,dok->o", some, codes[1, 1:5].astype(np.int64))
    for result in both_ways(body, levels, codes, np.zeros((1, TILE), np.int32)):
        np.testing.assert_array_equal(result[0], truth)


def test_rows_are_rounded_as_for_bytes() -> None:
    x = normal(3, 10)
    levels, steps = np.full((3, 12), 9, np.int16), np.empty(3, np.float32)
    in_bytes, same = np.empty((3, 2, 12), np.uint8), np.empty(3, np.float32)
    int8_pairs.round_rows(x, levels, steps)
    int8_vectors.quantize_rows(x, in_bytes, same)
    wide = in_bytes[:, 0].astype(int) * 256 + in_bytes[:, 1] - (1 << 14)
    wide[:, 10:] = 0
    np.testing.assert_array_equal(levels.reshape(3, 3, 4)[:, :, list(ORDER)].reshape(3, 12), wide)
    np.testing.assert_array_equal(steps, same)


@given(st.sampled_from([1, 2, 3, 4, 5, 37, 193]), st.integers(1, 300), st.integers(1, 150))
@settings(max_examples=25, deadline=None)
def test_pairs_have_the_bits_of_bytes(R: int, D: int, F: int) -> None:
    same(normal(R, D, seed=R), extreme(D, max(F, 2)))


@pytest.mark.parametrize("D", [1024, 1028, 3072])
@pytest.mark.parametrize("R", [1, 7])
def test_the_largest_sums_are_exact(R: int, D: int) -> None:
    """Every input and every weight is the largest: 32 bits hold the sum of 1,024 such products, and no more."""
    same(np.ones((R, D), np.float32), extreme(D, 3))


def same(x: np.ndarray, matrix: Matrix) -> None:
    """Compare both products' bits, and how far they are from float64."""
    R, F = len(x), matrix.shape[1]
    bias, results = normal(F, seed=3), []
    for run in (int8_pairs.by_pairs, int8_vectors.by_vectors):
        out = np.full((R, F), np.nan, np.float32)
        run(x, matrix.codes, matrix.scales, bias, out)
        results.append(out)
    np.testing.assert_array_equal(*results)
    truth = matrix.rounded(x).astype(np.float64) @ matrix.dequantize().astype(np.float64) + bias
    np.testing.assert_allclose(results[0], truth, rtol=1e-6, atol=1e-6 * np.abs(truth).max())

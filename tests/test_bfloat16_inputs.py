"""Inputs of bfloat16 products: rounded as torch rounds them, as float32 numbers and as words of two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kernel_bodies import both_ways, normal

from gpt2_np.engine.kernels import amx, bfloat16_inputs, bfloat16_tiles, float32_steps, simd
from gpt2_np.model.ops import to_bfloat16
from gpt2_np.weights.panels import GROUP, TILE, from_bits
from gpt2_np.weights.quantize import quantize_matrix


def by_torch(x: np.ndarray) -> np.ndarray:
    return torch.tensor(x).bfloat16().float().numpy()


def halves(x: np.ndarray) -> np.ndarray:
    """The same numbers as words of two, which may be followed by a 0."""
    bits = (np.pad(x, ((0, 0), (0, x.shape[1] % 2))).view(np.uint32) >> 16).astype(np.uint16)
    return bits.view(np.uint32)


bits = st.integers(0, 2**32 - 1).filter(lambda one: one & 0x7F800000 != 0x7F800000 or one & 0x7FFFFF == 0)  # not NaN


@given(arrays.arrays(np.uint32, st.tuples(st.integers(0, 4), st.integers(1, 67)), elements=bits))
@settings(max_examples=60, deadline=None)
def test_inputs_are_rounded_as_torch_rounds_them(some: np.ndarray) -> None:
    x = some.view(np.float32)
    truth = by_torch(x)
    np.testing.assert_array_equal(to_bfloat16(x), truth)
    wide, words = np.ones((len(x), x.shape[1] + 2), np.float32), np.empty((len(x), (x.shape[1] + 1) // 2), np.uint32)
    bfloat16_inputs.rounded_rows(x, wide)
    bfloat16_inputs.words_of_rows(x, words)
    np.testing.assert_array_equal(wide[:, :-2], truth)
    assert not wide[:, -2:].any()
    np.testing.assert_array_equal(words, halves(truth))


@pytest.mark.parametrize(("R", "D"), [(1, 1), (3, 70), (16, 64), (37, 33)])
def test_rounded_inputs_lie_as_tiles_load_them(R: int, D: int) -> None:
    x, blocks = normal(R, D), -(-D // GROUP)
    tiles = np.full(R * blocks * GROUP, 7, np.uint16)
    bfloat16_tiles.tiles_of_rows(x, tiles)
    wide = np.pad(by_torch(x), ((0, 0), (0, blocks * GROUP - D))).reshape(R, blocks, GROUP)
    groups = [wide[first : first + amx.ROWS].swapaxes(0, 1).ravel() for first in range(0, R, amx.ROWS)]
    np.testing.assert_array_equal(from_bits(tiles), np.concatenate(groups))


@pytest.mark.parametrize("pattern", [0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_nan_stays_nan(pattern: int) -> None:
    x = np.array([[pattern, pattern]], np.uint32).view(np.float32)
    wide, words = np.empty((1, 2), np.float32), np.empty((1, 1), np.uint32)
    bfloat16_inputs.rounded_rows(x, wide)
    bfloat16_inputs.words_of_rows(x, words)
    tiles = np.empty(GROUP, np.uint16)
    bfloat16_tiles.tiles_of_rows(x, tiles)
    assert np.isnan([to_bfloat16(x), wide, from_bits(words.view(np.uint16)), from_bits(tiles[None, :2])]).all()


@pytest.mark.parametrize("rows", sorted(float32_steps.STEPS))
def test_pairs_of_inputs_and_weights(rows: int) -> None:
    x = by_torch(normal(rows + 1, 50))
    matrix, step = quantize_matrix(normal(50, 2 * TILE, seed=1), "bfloat16"), float32_steps.STEPS[rows]

    def body(x, weights, out):
        step(x, 1, 0, weights, 1, 0, 10, 4, 9, 2, out, 3)
        step(x, 1, 0, weights, 1, 10, 20, 4, 9, 1, out, 3)

    truth = np.ones((rows + 2, TILE + 3), np.float32)
    truth[1:-1, 3:] = x[1:, :40] @ matrix.dequantize()[:40, TILE:]
    for result in both_ways(body, halves(x), matrix.codes, np.ones_like(truth)):
        np.testing.assert_allclose(result, truth, atol=2e-5)


def two_words(x, weights, out):
    float32_steps.one_row(x, 0, 0, weights, 0, 0, 2, 0, 0, 0, out, 0)


@pytest.mark.skipif(not (simd.AVX512 or simd.AVX2), reason="without fused multiply-adds, products are rounded too")
def test_the_upper_halves_come_first() -> None:
    # 1 + 2⁻²⁴ is a tie, and 1 again; with 1.5 · 2⁻²⁴ more it is 1 + 2⁻²³. In the other order two ties go up.
    x = halves(np.array([[0, 1, 1.5 * 2.0**-12, 2.0**-12]], np.float32))
    weight = np.repeat(np.array([[0], [1], [2.0**-12], [2.0**-12]], np.float32), TILE, axis=1)
    codes = quantize_matrix(weight, "bfloat16").codes
    out = both_ways(two_words, x, codes, np.zeros((1, TILE), np.float32))[1]
    np.testing.assert_array_equal(out, np.float32(1 + 2.0**-23))

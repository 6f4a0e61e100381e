"""bfloat16 for many rows: a block of a panel, widened once, gives each row the bits that it gets alone."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_bodies import both_ways, normal

from gpt2_np.engine.kernels import bfloat16_blocks, float32
from gpt2_np.engine.kernels.panel_passes import ROWS_PER_PANEL_PASS
from gpt2_np.weights.panels import TILE
from gpt2_np.weights.quantize import quantize_matrix


def widened_block(panels, out):
    bfloat16_blocks.widen(panels, 1, 20, 44, out)


def test_a_block_of_weights_is_widened() -> None:
    matrix = quantize_matrix(normal(64, 2 * TILE), "bfloat16")
    for result in both_ways(widened_block, matrix.codes, np.full((1, 30, TILE), 7, np.float32)):
        np.testing.assert_array_equal(result[0, :24], matrix.dequantize()[20:44, TILE:])
        assert (result[0, 24:] == 7).all()


def rows_together(x, panels, bias, out):
    for n in range(len(panels)):
        bfloat16_blocks.widened_panel(n, x, panels, bias, out)


def rows_as_they_come(x, panels, bias, out):
    for n in range(len(panels)):
        float32.panel_and_bias(n, x, panels, 2, bias, out)


@pytest.mark.parametrize("R", [1, 64, ROWS_PER_PANEL_PASS + 5])
@pytest.mark.parametrize(("D", "F"), [(2, 3), (256, 64), (600, 150)])
def test_the_bits_are_those_of_rows_that_widen_their_own(R: int, D: int, F: int) -> None:
    x, weight, bias = normal(R, D), normal(D, F, seed=1), normal(F, seed=2)
    matrix = quantize_matrix(weight, "bfloat16")
    plain, compiled = both_ways(rows_together, x, matrix.codes, bias, np.zeros((R, F), np.float32))
    truth = x.astype(np.float64) @ matrix.dequantize().astype(np.float64) + bias
    for result in (plain, compiled):
        np.testing.assert_allclose(result, truth, atol=1e-4)
    np.testing.assert_array_equal(
        compiled, both_ways(rows_as_they_come, x, matrix.codes, bias, np.zeros((R, F), np.float32))[1]
    )

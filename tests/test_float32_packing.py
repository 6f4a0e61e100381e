"""How operands of float32 products are packed: copied, transposed, and split into bfloat16 parts; both ways."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_bodies import both_ways, normal

from gpt2_np.engine.kernels import amx, float32, float32_blocks, float32_parts
from gpt2_np.engine.kernels.float32_steps import ROWS_PER_PASS
from gpt2_np.engine.kernels.panel_passes import ROWS_PER_PANEL_PASS
from gpt2_np.weights.panels import TILE, from_bits, packed

halves = pytest.mark.skipif(not amx.HALVES, reason="this processor, or its system, has no AMX for bfloat16")


def test_copying_and_transposing() -> None:
    x = normal(60, TILE + 9)

    def copying(x, out):
        float32_blocks.copy(x, 3, 5, out, 2)

    def transposing(x, out):
        float32_blocks.transpose(x, 3, 5, out, 2, 1)

    def all_of_it(x, out):
        float32_blocks.transpose_all(x, 3, 5, 50, 35, out)

    before, lanes, width = normal(40, TILE, seed=1), float32_blocks.LANES, float32_blocks.WIDTH
    for result in both_ways(copying, x, before[:, :width].copy()):
        np.testing.assert_array_equal(result[2], x[3, 5 : 5 + width])
    for result in both_ways(transposing, x, before):
        np.testing.assert_array_equal(result[2 : 2 + lanes, 1 : 1 + lanes], x[3 : 3 + lanes, 5 : 5 + lanes].T)
        np.testing.assert_array_equal(result[:2], before[:2])
    for result in both_ways(all_of_it, x, before):
        np.testing.assert_array_equal(result[:35, :50], x[3:53, 5:40].T)
        np.testing.assert_array_equal(result[35:], before[35:])


def many_rows(x, panels, bias, out):
    for n in range(len(panels)):
        float32.panel_of_many_rows(n, x, panels[n], bias, out)


def few_rows(x, panels, bias, out):
    for n in range(len(panels)):
        float32.panel_and_bias(n, x, panels, 1, bias, out)


@pytest.mark.parametrize("R", [ROWS_PER_PASS, ROWS_PER_PANEL_PASS + 2 * ROWS_PER_PASS])
@pytest.mark.parametrize(("D", "F"), [(2, 3), (256, 64), (600, 150)])
def test_many_rows_get_the_bits_of_few(R: int, D: int, F: int) -> None:
    x, weight, bias = normal(R, D), normal(D, F, seed=1), normal(F, seed=2)
    arguments = x, packed(weight).codes, bias, np.zeros((R, F), np.float32)
    plain, compiled = both_ways(many_rows, *arguments)
    truth = x.astype(np.float64) @ weight.astype(np.float64) + bias
    for result in (plain, compiled):
        np.testing.assert_allclose(result, truth, atol=1e-4)
    np.testing.assert_array_equal(compiled, both_ways(few_rows, *arguments)[1])


@pytest.mark.skipif(not amx.AVX512, reason="parts are packed for tiles, by AVX-512")
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("down", [True, False])
def test_packing_parts_of_float32(left: bool, down: bool) -> None:
    x = normal(70, 70)
    x[40:60] *= np.float32(1e-20)

    def body(x, panel):  # inside the matrix, and over its edge
        float32_parts.pack_step(x, left, down, 0, 32, panel, 0)
        float32_parts.pack_step(x, left, down, 48, 64, panel, float32_parts.STEP)

    plain, machine = both_ways(body, x, np.empty(2 * float32_parts.STEP, np.uint16))
    np.testing.assert_array_equal(plain, machine)
    sums = from_bits(plain).reshape(2, 3, -1).sum(axis=1, dtype=np.float64)
    numbers = (x.T if down else x).astype(np.float64)
    np.testing.assert_array_equal(np.sort(sums[0]), np.sort(numbers[:32, 32:64].ravel()))  # in some order, once each
    inside, over = np.sort(np.abs(numbers[48:, 64:].ravel())), np.sort(np.abs(sums[1]))
    np.testing.assert_array_equal(over[-len(inside) :], inside)
    assert not over[: -len(inside)].any()


@halves
def test_a_product_of_packed_panels() -> None:
    from gpt2_np.engine.kernels import float32_tiles  # compiled for AMX when it is imported

    a, b, bias = normal(32, 64), normal(64, 32, seed=1), normal(64, seed=2)
    panel = np.empty(4 * float32_parts.STEP, np.uint16)
    for step in range(2):
        float32_parts.pack_step(a, True, False, 0, 32 * step, panel, step * float32_parts.STEP)
        float32_parts.pack_step(b, False, True, 0, 32 * step, panel, (2 + step) * float32_parts.STEP)

    def body(panel, bias, out):
        amx.configure(16, 8)
        float32_tiles.multiply(panel, 0, 2 * float32_parts.STEP, 2, bias, out, 1, 3, out, 1, 3)
        amx.release()

    before = normal(33, 64, seed=3)
    truth = before.astype(np.float64)
    truth[1:, 3:35] = a.astype(np.float64) @ b + bias[3:35]
    for result in both_ways(body, panel, bias, before):
        np.testing.assert_allclose(result, truth, atol=1e-5)

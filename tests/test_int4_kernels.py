"""int4's products: the innermost steps in NumPy against their instructions, and sums in words against halves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_bodies import both_ways, normal, whole

from gpt2_np.engine.kernels import int4, int4_halves, int4_inputs, int4_words
from gpt2_np.engine.kernels.int4_inputs import RECORD, START, STEP, SUM
from gpt2_np.engine.kernels.simd import AVX512
from gpt2_np.weights.panels import GROUP, NO_SCALES, TILE, Matrix, packed_int4, to_bits
from gpt2_np.weights.quantize import quantize_matrix


def records_of(levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The records of these levels, (rows, groups · GROUP) int8, and steps, (rows, groups) float32."""
    groups = levels.reshape(*steps.shape, GROUP)
    records = np.empty((*steps.shape, RECORD), np.int32)
    records[..., :START] = groups.view(np.int32)
    records[..., START] = -8 * groups.sum(axis=2, dtype=np.int32)
    records[..., STEP] = steps.view(np.int32)
    records[..., SUM] = (groups.sum(axis=2, dtype=np.float32) * steps).view(np.int32)
    return records


STEPS = [*int4_words.STEPS.items(), *int4_halves.STEPS.items()]


@pytest.mark.parametrize(("rows", "step"), STEPS)
def test_a_panel(rows: int, step) -> None:
    matrix = quantize_matrix(normal(2 * GROUP, 2 * TILE), "int4")
    levels, steps = whole(-127, 128, np.int8, rows + 1, 2 * GROUP), np.abs(normal(rows + 1, 2, seed=1))

    def body(records, codes, scales, bias, out):
        step(records, 1, codes, scales, 1, 4, 9, 2, bias, out, 3)

    bias = normal(TILE, seed=2)
    groups = levels.reshape(-1, 2, GROUP) * steps[:, :, None]
    truth = groups.reshape(len(levels), -1) @ matrix.dequantize()[:, TILE:] + bias
    out = np.zeros((rows + 1, TILE + 3), np.float32)
    for result in both_ways(body, records_of(levels, steps), matrix.codes, matrix.scales, bias, out):
        np.testing.assert_allclose(result[1:, 3:], truth[1:], rtol=2e-5, atol=1e-3)
        assert not result[0].any()
        assert not result[:, :3].any()


@pytest.mark.parametrize("rows", sorted(int4_halves.STEPS))
def test_sums_of_the_largest_products_fit_in_halves(rows: int) -> None:
    """Whatever the signs, and whichever of the 32 inputs have the largest codes, the sums are the exact integers."""
    patterns = [np.full(GROUP, 127, np.int8), np.full(GROUP, -127, np.int8)]
    patterns += [np.where(np.arange(GROUP) // size % 2, 127, -127).astype(np.int8) for size in (1, 2, 4, 8, 16)]
    levels = np.stack(patterns + [-one for one in patterns[2:]])
    codes = np.full((GROUP, TILE), 15, np.uint8)
    codes[:, 1], codes[:, 2:34] = 0, 15 * np.eye(GROUP, dtype=np.uint8)  # none is large, one alone, all but one
    codes[:, 34:], step = 15 - codes[:, 2:32], int4_halves.STEPS[rows]
    scales = np.zeros((1, 1, 2, TILE), np.uint16)
    scales[0, 0, 0] = to_bits(np.ones(TILE, np.float32))  # a product is then its integer, which float32 holds exactly
    panel = packed_int4(codes[None, None])

    def body(records, codes, scales, bias, out):
        for r in range(0, len(records) - rows + 1, rows):
            step(records, r, codes, scales, 0, 4, 9, 2, bias, out, 0)

    levels = np.tile(levels, (rows, 1))
    truth = levels.astype(np.int64) @ (codes.astype(np.int64) - 8)
    records = records_of(levels, np.ones((len(levels), 1), np.float32))
    for result in both_ways(
        body, records, panel, scales, np.zeros(TILE, np.float32), np.zeros(truth.shape, np.float32)
    ):
        np.testing.assert_array_equal(result, truth)


def rounded(x, records):
    for g in range(records.shape[1]):
        int4_inputs.round_group(x, 1, GROUP * g, records, 0, g)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_a_group_s_record(size: float) -> None:
    x = normal(2, 3 * GROUP) * np.float32(size)
    x[1, GROUP : 2 * GROUP], x[1, 2 * GROUP] = 0, 10 * size
    plain, compiled = both_ways(rounded, x, np.zeros((1, 3, RECORD), np.int32))
    np.testing.assert_array_equal(plain, compiled)
    matrix = Matrix(np.zeros((1, 12, TILE, 4), np.uint8), NO_SCALES, (3 * GROUP, TILE))
    levels = np.ascontiguousarray(compiled[..., :START]).view(np.int8).astype(np.float32)
    steps = np.ascontiguousarray(compiled[..., STEP, None]).view(np.float32)
    np.testing.assert_array_equal((levels * steps).ravel(), matrix.rounded(x[1]))
    np.testing.assert_array_equal(compiled, records_of(levels.astype(np.int8).reshape(1, -1), steps[..., 0]))


def test_an_input_that_is_not_finite_gives_a_step_that_is_not() -> None:
    for size in (np.inf, -np.inf, np.nan):
        x = normal(2, GROUP)
        x[1, 7] = size
        with np.errstate(invalid="ignore"):
            for record in both_ways(rounded, x, np.zeros((1, 1, RECORD), np.int32)):
                assert not np.isfinite(record[0, 0, STEP : STEP + 1].view(np.float32)).any()


@pytest.mark.parametrize("D", [7, 32, 70, 300, 768])
def test_halves_give_the_bits_of_words(D: int) -> None:
    x, matrix, bias = normal(6, D), quantize_matrix(normal(D, TILE, seed=1), "int4"), normal(TILE, seed=2)
    x[:, ::5] *= 30
    records = np.empty((6, matrix.scales.shape[1], RECORD), np.int32)
    int4_inputs.round_groups(x, records)
    results = []
    for rows, step in STEPS:

        def body(records, codes, scales, bias, out, rows=rows, step=step):
            for r in range(0, len(records) - rows + 1, rows):
                step(records, r, codes, scales, 0, 4, 9, 2, bias, out, 0)

        out = np.zeros((6, TILE), np.float32)
        compiled = both_ways(body, records, matrix.codes, matrix.scales, bias, out)[1]
        results.append(compiled[: 6 // rows * rows])
    for result in results[1:]:
        some = min(len(result), len(results[0]))
        np.testing.assert_array_equal(result[:some], results[0][:some])


def test_a_processor_with_avx_512_sums_in_words() -> None:
    assert int4.STEPS is (int4_words if AVX512 else int4_halves).STEPS


TARGETS = [
    {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    {"NUMBA_CPU_NAME": "generic"},
    {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
]


@pytest.mark.slow
@pytest.mark.parametrize("variables", TARGETS, ids=lambda variables: "-".join(variables.values()))
def test_other_instructions_give_the_same_sums(variables: dict[str, str], tmp_path: Path) -> None:
    here = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", __file__]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | variables
    done = subprocess.run(here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

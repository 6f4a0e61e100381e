"""Reduced precision: how far each matrix is from the original, its two products, and what a model loses by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_np import GPT2
from gpt2_np.engine import kernels
from gpt2_np.model import ops
from gpt2_np.weights.panels import GROUP, Matrix
from gpt2_np.weights.quantize import REDUCED, quantize_matrix


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@given(
    rows=st.integers(1, 9), columns=st.integers(1, 70), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_each_weight_is_as_near_as_the_format_allows(rows: int, columns: int, scale: float, seed: int) -> None:
    weight = normal(rows, columns, seed=seed) * np.float32(scale)
    half = quantize_matrix(weight, "bfloat16").dequantize()
    np.testing.assert_array_equal(half, torch.tensor(weight).bfloat16().float().numpy())
    matrix = quantize_matrix(weight, "int8")
    assert (np.abs(matrix.dequantize() - weight) <= 0.5001 * matrix.scales[0]).all()
    np.testing.assert_array_equal(matrix.scales[1], matrix.codes.sum(axis=(1, 3), dtype=np.int64).ravel()[:columns])
    assert (matrix.shape, matrix.size) == ((rows, columns), rows * columns)
    quarter = quantize_matrix(weight, "int4")
    assert (quarter.shape, quarter.size) == ((rows, columns), rows * columns)
    for start in range(0, rows, GROUP):
        group, back = weight[start : start + GROUP], quarter.dequantize()[start : start + GROUP]
        # Nothing is further off than the obvious grid's ends may be cut, and bfloat16 rounds scale and minimum.
        assert (np.abs(back - group) <= 0.12 * np.ptp(group, axis=0) + 0.01 * np.abs(group).max(axis=0)).all()


@given(
    rows=st.integers(1, 100),
    columns=st.integers(1, 9),
    size=st.integers(1, 9),
    start=st.integers(0, 8),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_some_outputs_are_those_outputs_of_the_whole(rows: int, columns: int, size: int, start: int, seed: int) -> None:
    part = slice(min(start, columns), min(start + size, columns))
    for dtype in REDUCED:
        matrix = quantize_matrix(normal(rows, columns, seed=seed), dtype)
        np.testing.assert_array_equal(matrix.dequantize(part), matrix.dequantize()[:, part])


def test_zeros_stay_zeros() -> None:
    weight = np.zeros((3, 40), np.float32)
    for dtype in REDUCED:
        np.testing.assert_array_equal(quantize_matrix(weight, dtype).dequantize(), weight)
    with pytest.raises(ValueError, match="dtype must be one of bfloat16, int8, int4, got 'int2'"):
        quantize_matrix(weight, "int2")


@pytest.mark.parametrize("twin", [ops, kernels])
@pytest.mark.parametrize("dtype", REDUCED)
@pytest.mark.parametrize("rows", [1, 3, 60])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (5, 7), (66, 64), (300, 33), (768, 768)])
def test_both_products_are_the_widened_matrix_times_rounded_x(
    twin, dtype: str, rows: int, outputs: int, inputs: int
) -> None:
    matrix, x, bias = quantize_matrix(normal(inputs, outputs), dtype), normal(2, rows, inputs, seed=1), normal(outputs)
    truth = matrix.rounded(x).astype(np.float64) @ matrix.dequantize().astype(np.float64)
    for result, expected in ((twin.linear(x, matrix, bias), truth + bias), (twin.unembed(x, matrix), truth)):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=3e-5 * max(1.0, inputs**0.5 / 4))


@given(inputs=st.integers(1, 70), scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_multiplied_is_rounded_to_half_a_step(inputs: int, scale: float, seed: int) -> None:
    x = normal(3, inputs, seed=seed) * np.float32(scale)
    half, eighth, quarter = (quantize_matrix(normal(inputs, 5), dtype).rounded(x) for dtype in REDUCED)
    np.testing.assert_array_equal(half, torch.tensor(x).bfloat16().float().numpy())
    assert (np.abs(eighth - x) <= 0.501 / 16383 * np.abs(x).max(axis=-1, keepdims=True)).all()
    for start in range(0, inputs, GROUP):
        part = slice(start, start + GROUP)
        assert (np.abs(quarter - x)[:, part] <= 0.501 / 127 * np.abs(x)[:, part].max(axis=-1, keepdims=True)).all()


LICENSE = Path(__file__).parent.parent / "LICENSE"
TEXT = LICENSE.read_text() + "Once upon a time there was a king who had three sons. " * 4


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.001), ("int8", 0.005), ("int4", 0.05)])
def test_what_the_bundled_model_loses(dtype: str, within: float) -> None:
    reduced = GPT2.from_pretrained(dtype=dtype)
    assert isinstance(reduced.params.lm_head, Matrix)
    change = reduced.score(TEXT).perplexity / GPT2.from_pretrained().score(TEXT).perplexity - 1
    assert abs(change) < within
    assert reduced.generate("The king", max_new_tokens=10).ids == (
        GPT2.from_pretrained(dtype=dtype, backend="numpy").generate("The king", max_new_tokens=10).ids
    )


RESIDENT = """
import sys; from gpt2_np.session.model import Model
model = Model.from_pretrained(sys.argv[1], dtype=sys.argv[2])
print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')][0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't tell what a process holds")
def test_converting_does_not_hold_on_to_the_file(tmp_path: Path) -> None:
    from reference import reference_model, save

    folder = save(reference_model(n_embd=512, n_head=8, n_layer=12, vocab_size=5000), tmp_path)

    def megabytes(dtype: str) -> float:
        command = [sys.executable, "-c", RESIDENT, str(folder), dtype]
        return int(subprocess.check_output(command, text=True)) / 1e3

    size = (folder / "model.safetensors").stat().st_size / 1e6
    assert size > 150
    assert megabytes("int8") < megabytes("float32") - 0.5 * size

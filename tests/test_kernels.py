"""Each compiled kernel against its readable twin: one body, both implementations, over a table of shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from kernel_bodies import both_ways
from reference import random_ids

from gpt2_np.engine import kernels
from gpt2_np.engine.kernels import exponential, float32
from gpt2_np.model import ops
from gpt2_np.session.model import Model
from gpt2_np.weights.panels import packed

TWINS = [ops, kernels]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def in_float64(function: str, *arguments):
    """What the readable twin gives in float64: the truth that both are held against."""
    wide = [
        argument.astype(np.float64) if getattr(argument, "dtype", None) == np.float32 else argument
        for argument in arguments
    ]
    return getattr(ops, function)(*wide)


def check(twin: ModuleType, function: str, *arguments, within: float = 2e-6) -> None:
    before = [np.array(argument) for argument in arguments if isinstance(argument, np.ndarray)]
    result, truth = getattr(twin, function)(*arguments), in_float64(function, *arguments)
    assert result.dtype == np.float32
    assert result.shape == truth.shape
    scale = max(1.0, float(np.abs(truth[np.isfinite(truth)]).max(initial=0)))
    np.testing.assert_allclose(result, truth, atol=within * scale, rtol=0)
    after = [argument for argument in arguments if isinstance(argument, np.ndarray)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


ROWS = [(1,), (3,), (1, 1), (2, 5), (97,), (4, 70)]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize(("D", "F"), [(1, 1), (7, 5), (8, 64), (65, 3), (768, 2304), (200, 33)])
def test_linear_and_unembed(twin: ModuleType, rows: tuple[int, ...], D: int, F: int) -> None:
    x = normal(*rows, D)
    check(twin, "linear", x, normal(D, F, seed=1), normal(F, seed=2))
    check(twin, "unembed", x, normal(F, D, seed=1))
    check(twin, "layer_norm", x, normal(D, seed=1), normal(D, seed=2), 1e-5, within=4e-6)
    check(twin, "softmax", x)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3072), (2, 3, 64), (1, 300, 100)], ids=str)
def test_gelu(twin: ModuleType, shape: tuple[int, ...]) -> None:
    x = normal(*shape) * 4
    x.flat[0] = 0
    check(twin, "gelu_new", x, within=1e-6)
    check(twin, "gelu_new", x * 100, within=1e-6)
    for name in ("gelu_new", "relu", "gelu", "silu"):
        check(twin, "activate", x, name)


LENGTHS = [([0], 1), ([0], 7), ([5], 1), ([0, 9, 3], 1), ([4, 0], 6), ([60], 4), ([0], 150), ([37], 130)]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("lengths", "T"), LENGTHS, ids=str)
@pytest.mark.parametrize(("H", "K"), [(1, 1), (3, 5), (4, 64)])
def test_attention(twin: ModuleType, lengths: list[int], T: int, H: int, K: int) -> None:
    B, N = len(lengths), max(lengths) + T
    q, k, v = normal(B, T, H, K), normal(B, H, N, K, seed=1), normal(B, H, N, K, seed=2)
    check(twin, "attention", q, k, v, np.array(lengths), K**-0.5)
    # What lies behind a row's end, and a cache with room to spare, must not matter.
    padding = ((0, 0), (0, 0), (0, 9), (0, 0))
    roomy = [np.pad(k, padding, constant_values=1e9), np.pad(v, padding, constant_values=1e9)]
    np.testing.assert_array_equal(
        twin.attention(q, *roomy, np.array(lengths), 1.0), twin.attention(q, k, v, np.array(lengths), 1.0)
    )


@pytest.mark.parametrize("twin", TWINS)
def test_input_that_is_not_contiguous(twin: ModuleType) -> None:
    x, weight = normal(40, 6).T[:, ::2], normal(33, 20).T
    check(twin, "linear", x, weight, normal(33))
    check(twin, "layer_norm", x, normal(20), normal(20, seed=1), 1e-5)
    check(twin, "gelu_new", x)
    q = normal(2, 4, 1, 8).transpose(0, 2, 1, 3)
    k, v = normal(2, 9, 4, 8).swapaxes(1, 2), normal(2, 9, 4, 8, seed=1).swapaxes(1, 2)
    check(twin, "attention", q, k, v, np.array([8, 3]), 1.0)


def exponentials_of(x: np.ndarray, values: np.ndarray) -> None:
    for i in range(len(x)):
        values[i] = exponential.exp(x[i])


def test_exponential_is_good_to_the_last_bits() -> None:
    x, values = np.linspace(-87, 88, 20001, dtype=np.float32), np.empty(20001, np.float32)
    numba.njit(exponentials_of)(x, values)
    np.testing.assert_allclose(values, np.exp(x.astype(np.float64)), rtol=2.5e-7)


def both_panels(x: np.ndarray, codes: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    for n in range(2):
        float32.float32_panel(n, x, codes, bias, out)


@pytest.mark.parametrize("rows", [2, 5, 30])
def test_compiled_and_plain_bodies_agree(rows: int) -> None:
    x, matrix, bias = normal(rows, 75), packed(normal(75, 70, seed=1)), normal(70, seed=2)
    np.testing.assert_allclose(
        *both_ways(both_panels, x, matrix.codes, bias, np.zeros((rows, 70), np.float32)), atol=1e-5
    )


def test_a_row_decodes_to_the_same_bits_in_any_company(small: Path) -> None:
    model, ids = Model.from_pretrained(small), random_ids(5, 30)
    together, alone = model.start(), model.start()
    for t in range(30):
        all_rows = together.feed(ids[:, t : t + 1])
        np.testing.assert_array_equal(all_rows[3:4], alone.feed(ids[3:4, t : t + 1]))


def run(code: str, *arguments: str, **variables: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code, *arguments], env=os.environ | variables, text=True)


LOGITS = (
    "import sys; from gpt2_np.session.model import Model; s = Model.from_pretrained(sys.argv[1]).start();"
    "s.feed([[1, 2, 3]]); print(float(s.feed([[4]])[0, 5]))"
)


BITS = """
import sys, zlib, numpy as np; from gpt2_np.session.model import Model
model, ids = Model.from_pretrained(sys.argv[1]), np.random.default_rng(0).integers(0, 97, (2, 40))
session = model.start()
logits = [session.feed(ids[:, :3])] + [session.feed(ids[:, t : t + 1]) for t in range(3, 40)]
print(zlib.crc32(np.stack(logits).tobytes()), zlib.crc32(model(ids).tobytes()))
"""


def test_any_number_of_threads_gives_the_same_bits(small: Path) -> None:
    answers = {run(BITS, str(small), NUMBA_NUM_THREADS=threads) for threads in ("1", "2", "3")}
    assert len(answers) == 1


def test_works_without_compiling(small: Path) -> None:
    plain = float(run(LOGITS, str(small), NUMBA_DISABLE_JIT="1"))
    assert plain == pytest.approx(float(run(LOGITS, str(small))), abs=1e-5)


NORM = """
import numpy as np
from gpt2_np.engine.kernels import layer_norm
x = np.arange(6, dtype=np.float32).reshape(1, 6)
print(layer_norm(x, np.ones(6, np.float32), np.zeros(6, np.float32), 1e-5)[0, 0])
"""


def test_processes_that_start_together_on_a_cold_cache(tmp_path: Path) -> None:
    variables, command = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, [sys.executable, "-c", NORM]
    started = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(answers)) == 1
    # To rounding: a kernel compiled while another's code was being written may have been inlined differently.
    assert float(answers[0]) == pytest.approx(float(run(NORM, NUMBA_CACHE_DIR=str(tmp_path))), abs=1e-5)

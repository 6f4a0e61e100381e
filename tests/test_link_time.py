"""Link-time optimisation of kernels: what is optimised, what remains, and that Numba's other users notice nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types
from numba.core.registry import cpu_target
from numba.extending import register_jitable

from gpt2_np.engine.kernels import link_time
from gpt2_np.engine.kernels.compiled import PLAIN

pytestmark = pytest.mark.skipif(PLAIN, reason="kernels run as plain Python")
vector = types.Array(types.float64, 1, "C")


@register_jitable
def doubled(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = 2 * x[i]
    return out


@register_jitable
def doubled_twice(x: np.ndarray) -> np.ndarray:
    return doubled(doubled(x))


def kernel(x: np.ndarray) -> float:
    return doubled_twice(x).sum()


def test_only_what_is_chosen_is_optimised_and_can_be_called() -> None:
    numbas = cpu_target.target_context.codegen()
    before, made = numbas._library_class, numba.njit(kernel)
    with link_time.optimised_once(lambda name: name == "kernel"):
        made.compile((vector,))
        with link_time.optimised_once(lambda name: name == "doubled"):
            inner = numba.njit(doubled)
            inner.compile((vector,))
        part = numba.njit(doubled_twice)
        part.compile((vector,))
    assert numbas._library_class is before
    assert "set_env" not in vars(numbas)
    libraries = [next(iter(one.overloads.values())).library for one in (made, inner, part)]
    assert [one.whole for one in libraries] == [True, True, False]
    within = {one.name: one for one in link_time.called(libraries[0])}
    assert not within["doubled"].whole
    assert not within["doubled_twice"].whole
    assert made(np.arange(4.0)) == 24
    assert inner(np.arange(3.0)).tolist() == [0, 2, 4]


def test_an_error_leaves_numba_as_it_was() -> None:
    numbas = cpu_target.target_context.codegen()
    before = numbas._library_class
    with pytest.raises(KeyError, match="inside"), link_time.optimised_once(lambda name: True):
        raise KeyError("inside")
    assert numbas._library_class is before
    assert numba.njit(lambda x: x + 1)(1) == 2


def test_what_others_compile_later_is_linked_with_all_that_it_calls(tmp_path: Path) -> None:
    """Numba's own functions, which a kernel has left without machine code, serve another package's functions too."""
    code = """
import numba, numpy as np
from numba import prange
from gpt2_np.engine.kernels import backwards
from gpt2_np.engine.kernels.kernel_types import PARALLEL_NOGIL, SERIAL

@numba.njit(**SERIAL)  # Numba compiles its own functions for each choice of settings
def serial(n):
    x = np.zeros(n, np.float64)
    x[1:] = np.ones((1, n), np.float32)[0, 1:]
    return x.sum() + len(np.empty(n, np.float32))

@numba.njit(**PARALLEL_NOGIL)
def parallel(n):
    found = np.zeros(n, np.float32)
    for i in prange(n):
        found[i] = max(np.zeros(8, np.float64).sum(), np.float32(i))
    return found.sum()

print(serial(5), parallel(4))
"""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    for _ in range(2):  # compiled, and from the cache
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout == "9.0 6.0\n"

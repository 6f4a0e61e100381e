"""Arrays in large memory."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpt2_np.system import memory


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1.0, 1.4, 1.9, 2.0, 3.3])
def test_large_arrays_begin_where_a_large_page_does(share: float, dtype: type) -> None:
    numbers = int(share * memory.LARGE_PAGE) // np.dtype(dtype).itemsize // 2
    array = memory.empty((2, numbers), dtype)
    assert (array.shape, array.dtype) == ((2, numbers), dtype)
    assert array.flags.c_contiguous
    assert array.ctypes.data % memory.LARGE_PAGE == 0 or share < 0.5
    array[...] = 1


@pytest.mark.parametrize("make", [memory.empty, memory.zeros])
def test_small_arrays_begin_with_a_line_of_the_cache(make) -> None:
    arrays = [make((3, n), np.float32) for n in range(1, 60)]
    assert {array.ctypes.data % memory.CACHE_LINE for array in arrays} == {0}
    for n, array in enumerate(arrays):
        array[...] = n
    assert all((array == n).all() and array.shape == (3, n + 1) for n, array in enumerate(arrays))


def test_arrays_in_one_piece_each_begin_with_a_line() -> None:
    shapes = [(3, 5), (1,), (64,), (2, 3, 4), (17,)]
    arrays = memory.in_one_piece(shapes, np.float32)
    for n, array in enumerate(arrays):
        array[...] = n
    assert [array.shape for array in arrays] == shapes
    assert all((array == n).all() and array.ctypes.data % memory.CACHE_LINE == 0 for n, array in enumerate(arrays))


@pytest.fixture
def none_waiting(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    waiting: list[np.ndarray] = []
    monkeypatch.setattr(memory, "_waiting", waiting)
    return waiting


def test_memory_is_used_again_once_no_array_lies_in_it(none_waiting: list[np.ndarray]) -> None:
    def place(shape: tuple[int, ...] = (1000, 1000)) -> tuple[np.ndarray, int]:
        array = memory.empty(shape, np.float32)
        return array, array.ctypes.data

    first, where = place()
    view = first[10:].reshape(-1)[5:]
    del first
    second, elsewhere = place()
    assert elsewhere != where
    del view
    assert place((250, 4000))[1] == where  # another shape of the same size
    assert place((1500, 1000))[1] not in (where, elsewhere)
    del second
    assert {place()[1] for _ in range(3)} <= {where, elsewhere}


def test_zeros_are_zeros_in_used_memory_too(none_waiting: list[np.ndarray]) -> None:
    array = memory.zeros((700, 1000), np.float64)
    where = array.ctypes.data
    assert not array.any()
    array[...] = np.nan
    del array
    again = memory.zeros((1000, 700), np.float64)
    assert again.ctypes.data == where
    assert not again.any()


def test_what_waits_is_bounded(none_waiting: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REUSABLE_BYTES", 8 * memory.LARGE_PAGE)
    several = [memory.empty((memory.LARGE_PAGE + number,), np.uint8) for number in range(9)]
    del several
    assert 0 < sum(memory.nbytes for memory in none_waiting) <= memory.REUSABLE_BYTES
    before = len(none_waiting)
    memory.empty((5 * memory.LARGE_PAGE,), np.uint8)  # more than half of it
    assert len(none_waiting) == before


def test_more_may_wait_for_a_while(none_waiting: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REUSABLE_BYTES", 2 * memory.LARGE_PAGE)
    shape = (8 * memory.LARGE_PAGE,)
    memory.empty(shape, np.uint8)
    assert not none_waiting
    with memory.reusing(40 * memory.LARGE_PAGE):
        place = memory.empty(shape, np.uint8).ctypes.data
        assert len(none_waiting) == 1
        assert memory.empty(shape, np.uint8).ctypes.data == place
        with memory.reusing(1):  # never less
            memory.empty(shape, np.uint8)
            assert none_waiting
        assert none_waiting
    assert sum(one.nbytes for one in none_waiting) <= memory.REUSABLE_BYTES


def test_threads_do_not_get_the_same_memory(none_waiting: list[np.ndarray]) -> None:
    def work(number: int) -> bool:
        sound = True
        for turn in range(400):
            array = memory.empty((300_000 * (1 + turn % 3),), np.float32)
            array[::10_000] = number
            other = memory.zeros(array.shape, np.float32)
            sound &= bool((array[::10_000] == number).all() and not other[::10_000].any())
            other[::10_000] = -1
        return sound

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_nothing_is_said_when_python_ends() -> None:
    code = (
        "import sys; from functools import lru_cache; from gpt2_np.system import memory\n"
        "f = lru_cache(lambda: memory.empty((1000, 1000), 'f')); f(); sys.kept = memory.zeros((999, 999), 'f')\n"
        "class C: pass\n"
        "c = C(); c.me, c.x = c, memory.empty((1000, 1000), 'f')"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't say how much memory is used")
def test_freed_memory_goes_back_to_the_system(none_waiting: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """C's allocator keeps holes between arrays that are still used, once blocks of their size have been freed."""
    monkeypatch.setattr(memory, "REUSABLE_BYTES", 0)

    def used() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) << 10

    shape = (3 << 20,)
    for _ in range(3):
        memory.empty(shape, np.uint8).fill(1)
    arrays = [memory.empty(shape, np.uint8) for _ in range(60)]
    for array in arrays:
        array.fill(1)
    del array
    before = used()
    del arrays[::2]
    assert before - used() > 20 * shape[0]

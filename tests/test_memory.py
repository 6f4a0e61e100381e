"""Arrays in large memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpt2_np.system import memory, reuse


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
def pool(monkeypatch: pytest.MonkeyPatch) -> reuse.Pool:
    """A pool of the test's own, in which nothing waits."""
    own = reuse.Pool()
    for module in (memory, reuse):
        monkeypatch.setattr(module, "POOL", own)
    return own


def test_memory_is_used_again_once_no_array_lies_in_it(pool: reuse.Pool) -> None:
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


def test_zeros_are_zeros_in_used_memory_too(pool: reuse.Pool) -> None:
    array = memory.zeros((700, 1000), np.float64)
    where = array.ctypes.data
    assert not array.any()
    array[...] = np.nan
    del array
    again = memory.zeros((1000, 700), np.float64)
    assert again.ctypes.data == where
    assert not again.any()


def test_what_waits_is_bounded(pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 8 * memory.LARGE_PAGE)
    several = [memory.empty((memory.LARGE_PAGE + number,), np.uint8) for number in range(9)]
    del several
    assert 0 < counted(pool) <= reuse.REUSABLE_BYTES
    before = len(pool.waiting)
    memory.empty((5 * memory.LARGE_PAGE,), np.uint8)  # more than half of it
    assert len(pool.waiting) == before
    reuse.give_back()
    assert counted(pool) == 0


def counted(pool: reuse.Pool) -> int:
    """The bytes that wait, which the pool counts as well."""
    total = sum(one.nbytes for one in pool.waiting)
    assert pool.bytes == total
    return total


def test_more_may_wait_for_a_while(pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 2 * memory.LARGE_PAGE)
    shape = (8 * memory.LARGE_PAGE,)
    memory.empty(shape, np.uint8)
    assert not pool.waiting
    with reuse.reusing(40 * memory.LARGE_PAGE):
        place = memory.empty(shape, np.uint8).ctypes.data
        assert len(pool.waiting) == 1
        assert memory.empty(shape, np.uint8).ctypes.data == place
        with reuse.reusing(1):  # never less
            memory.empty(shape, np.uint8)
            assert pool.waiting
        assert pool.waiting
    assert counted(pool) <= reuse.REUSABLE_BYTES


def run(pages: int) -> list[np.ndarray]:
    """A run that needed four arrays of so many large pages at once, and leaves three."""
    with reuse.retaining():
        return [memory.zeros((pages * memory.LARGE_PAGE,), np.uint8) for _ in range(4)][:3]


def places(arrays: list[np.ndarray]) -> set[int]:
    return {array.ctypes.data for array in arrays}


def test_what_a_run_held_waits_for_the_next_one(pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 2 * memory.LARGE_PAGE)
    if not hasattr(mmap, "MADV_FREE"):  # as if the system could be told
        monkeypatch.setattr(reuse, "marked", lambda memory: True)
    first = run(4)
    held, before = pool.runs[-1], places(first)
    assert held == pool.in_use // 3 * 4
    for array in first:
        array.fill(1)
    del array, first
    assert counted(pool) == held // 4 * 3
    assert pool.in_use == 0
    second = run(4)
    assert len(before & places(second)) > 1
    assert not any(array.any() for array in second)
    assert counted(pool) == held // 4
    del second
    for _ in range(reuse.RUNS):
        run(1)
    assert counted(pool) <= max(pool.runs) < held  # none of the last runs held more


def test_behind_reusing_no_more_waits_than_usual(pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 2 * memory.LARGE_PAGE)
    monkeypatch.setattr(reuse, "marked", lambda memory: pytest.fail("nothing is marked here"))
    with reuse.reusing(100 * memory.LARGE_PAGE):
        run(4)
        assert counted(pool) > reuse.REUSABLE_BYTES
    assert counted(pool) <= reuse.REUSABLE_BYTES


def test_memory_of_another_allocator_cannot_be_marked() -> None:
    assert not reuse.marked(np.zeros(memory.LARGE_PAGE, np.uint8))


def test_memory_that_the_system_cannot_take_back_is_not_retained(
    pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 2 * memory.LARGE_PAGE)
    monkeypatch.setattr(reuse, "marked", lambda memory: False)
    run(4)
    assert counted(pool) == 0


def test_what_is_freed_while_the_pool_changes_is_no_longer_in_use(pool: reuse.Pool) -> None:
    array = memory.empty((1000, 1000), np.float32)
    with pool.changing:
        del array
    assert counted(pool) == 0
    assert pool.in_use > 0
    memory.empty((1000, 1000), np.float32)
    assert pool.in_use == 0


def test_threads_do_not_get_the_same_memory(pool: reuse.Pool) -> None:
    def work(number: int) -> bool:
        sound = True
        for turn in range(400):
            array = memory.empty((300_000 * (1 + turn % 3),), np.float32)
            array[::10_000] = number
            other = memory.zeros(array.shape, np.float32)
            sound &= bool((array[::10_000] == number).all() and not other[::10_000].any())
            other[::10_000] = -1
        return sound

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
    assert pool.in_use == sum(pool.missed)


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
def test_freed_memory_goes_back_to_the_system(pool: reuse.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """C's allocator keeps holes between arrays that are still used, once blocks of their size have been freed."""
    monkeypatch.setattr(reuse, "REUSABLE_BYTES", 0)

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

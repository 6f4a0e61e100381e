"""The thread pool: every piece is done once, whoever waits for whom, and an error ends the rest."""

from __future__ import annotations

import threading
import time
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gpt2_np.system.threads import blas_threads, counted_once, on_threads, one_blas_thread


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("pieces", [0, 1, 3, 40])
def test_every_piece_is_done_once_by_at_most_so_many_threads(threads: int, pieces: int) -> None:
    done: list[int] = []
    who: set[int] = set()

    def work(piece: int) -> None:
        who.add(threading.get_ident())
        done.append(piece)
        time.sleep(0.001)

    on_threads(work, range(pieces), threads)
    assert sorted(done) == list(range(pieces))
    assert len(who) <= threads


def test_the_caller_takes_part() -> None:
    both = threading.Barrier(2)
    on_threads(lambda _: both.wait(timeout=10), range(2), 2)  # neither piece ends before the other has begun
    who: list[int] = []
    on_threads(lambda _: who.append(threading.get_ident()), [0], 2)
    assert who == [threading.get_ident()]


def test_work_that_divides_its_own_work_never_waits_for_itself() -> None:
    done: list[tuple[int, int]] = []

    def outer(piece: int) -> None:
        on_threads(lambda inner: done.append((piece, inner)), range(5), 3)

    on_threads(outer, range(20), 3)
    assert sorted(done) == [(piece, inner) for piece in range(20) for inner in range(5)]


@pytest.mark.parametrize("wrong", [0, 7])
def test_an_error_reaches_the_caller_and_ends_the_rest(wrong: int) -> None:
    done: list[int] = []

    def work(piece: int) -> None:
        if piece == wrong:
            raise ValueError(f"piece {piece}")
        time.sleep(0.002)
        done.append(piece)

    with pytest.raises(ValueError, match=f"^piece {wrong}$"):
        on_threads(work, range(1000), 2)
    assert len(done) < 900
    count = len(done)
    time.sleep(0.02)
    assert len(done) == count  # nothing goes on behind the caller's back


def test_what_numpy_does_with_errors_holds_on_every_thread() -> None:
    both = threading.Barrier(2)

    def divide(_: int) -> None:
        both.wait(timeout=10)
        np.float32(1) / np.float32(0)

    with np.errstate(divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        on_threads(divide, range(2), 2)


def test_threads_are_counted_once_and_are_one_where_blas_has_one() -> None:
    seen: list[int] = []
    with threadpool_limits(2, user_api="blas"):
        with counted_once(), threadpool_limits(1, user_api="blas"):
            assert blas_threads() == 2
            with one_blas_thread():
                on_threads(lambda _: seen.append(blas_threads()), range(4), 2)
            assert blas_threads() == 2
        assert blas_threads() == 2
        with threadpool_limits(1, user_api="blas"):
            assert blas_threads() == 1
        with pytest.raises(ZeroDivisionError), counted_once(), one_blas_thread():
            seen.append(1 // 0)
        assert blas_threads() == 2
    assert seen == [1] * 4

"""torch's random streams without torch: the CPU's against torch itself, Philox against its authors' known answers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decoders.random import cuda_log
from decoders.random.draws import multinomial
from decoders.random.torch_rng import CPU, CUDA, philox

# (counter, key) → words: Random123's kat_vectors, philox4x32-10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def everything(stream, rows: int, V: int) -> np.ndarray:
    return stream.exponential(rows, V, np.arange(rows * V)).reshape(rows, V)


@given(seed=st.integers(0, 2**63 - 1), rows=st.integers(1, 5), V=st.integers(1, 300), calls=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_the_cpu_s_exponentials_are_torch_s(seed: int, rows: int, V: int, calls: int) -> None:
    torch.manual_seed(seed)
    stream = CPU(seed)
    for _ in range(calls):
        np.testing.assert_array_equal(everything(stream, rows, V), torch.empty(rows, V).exponential_().numpy())


@pytest.mark.parametrize("V", [2, 97, 4096, 50257])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_multinomial_is_torch_s(V: int, n: int) -> None:
    p = np.random.default_rng(V).dirichlet(np.full(V, 0.1), 3).astype(np.float32)
    p[:, V // 2 :: 5] = 0
    p[:, 0] += 0.01
    n = min(n, int((p > 0).sum(axis=1).min()))
    torch.manual_seed(5)
    stream = CPU(5)
    for _ in range(4):
        theirs = torch.multinomial(torch.tensor(p), n).numpy()
        np.testing.assert_array_equal(multinomial(stream, p, n, range(3), 3), theirs)


def test_rows_that_are_finished_still_consume_the_stream() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(50), 4).astype(np.float32)
    torch.manual_seed(1)
    theirs = [torch.multinomial(torch.tensor(p), 1).numpy()[:, 0] for _ in range(2)]
    stream = CPU(1)
    first = multinomial(stream, p[[0, 2]], 1, [0, 2], 4)[:, 0]
    second = multinomial(stream, p[[2]], 1, [2], 4)[:, 0]
    np.testing.assert_array_equal(first, theirs[0][[0, 2]])
    np.testing.assert_array_equal(second, theirs[1][[2]])


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, words) -> None:
    low, high = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    ours = philox(key[0] | key[1] << 32, np.array([low], np.uint64), np.array([high], np.uint64))
    assert tuple(int(word) for word in ours[:, 0]) == words


def by_the_letter(seed: int, offset: int, n: int, multiprocessors: int) -> list[float]:
    """DistributionTemplates.h, thread by thread: the loop that the closed form in `CUDA` stands for."""
    threads = 256 * min(-(-n // 256), multiprocessors * 8)
    out = [0.0] * n
    for thread in range(threads):
        block = offset // 4
        for start in range(thread, -(-n // (4 * threads)) * 4 * threads, 4 * threads):
            words = philox(seed, np.array([block], np.uint64), np.array([thread], np.uint64))[:, 0]
            for lane in range(4):
                if start + lane * threads < n:
                    u = np.float32(words[lane]) * np.float32(2**-32) + np.float32(2**-33)
                    large = u >= 1 - np.float32(2**-24)
                    q = np.float32(2**-24) if large else -cuda_log.log(np.array([u]))[0]
                    out[start + lane * threads] = float(q)
            block += 1
    return out


@pytest.mark.parametrize(("rows", "V", "multiprocessors"), [(1, 50, 132), (3, 700, 1), (2, 5000, 1), (1, 1024, 2)])
def test_cuda_s_layout_is_the_source_s_loop(rows: int, V: int, multiprocessors: int) -> None:
    stream, n = CUDA(12345, multiprocessors), rows * V
    first, second = everything(stream, rows, V), everything(stream, rows, V)
    np.testing.assert_array_equal(first.ravel(), np.array(by_the_letter(12345, 0, n, multiprocessors), np.float32))
    step = stream.offset // 2
    np.testing.assert_array_equal(second.ravel(), np.array(by_the_letter(12345, step, n, multiprocessors), np.float32))


def test_the_logarithm_is_a_cuda_device_s() -> None:
    half_to_one = np.arange(2**23, dtype=np.uint32) + np.float32(0.5).view(np.uint32)
    found = cuda_log.log(half_to_one.view(np.float32))
    # Of `__logf` of all of them, as an H200 gave it.
    assert hashlib.sha256(found.tobytes()).hexdigest() == (
        "c45a2513d8459f5963e4b2450db07a57522a29ecc69a8b8289063f90d9d1c533"
    )


@pytest.mark.parametrize("exponent", [-2, -7, -20, -33])
def test_the_logarithm_is_near_the_true_one(exponent: int) -> None:
    x = (np.random.default_rng(0).uniform(1, 2, 10_000) * 2.0**exponent).astype(np.float32)
    np.testing.assert_allclose(cuda_log.log(x), np.log(x.astype(np.float64)), rtol=3e-7)


@pytest.mark.parametrize("stream", [CPU(0), CUDA(0)])
def test_draws_have_the_distribution_that_was_asked_for(stream) -> None:
    p = np.array([0.4, 0.3, 0.2, 0.09, 0.01])
    rows = p.astype(np.float32)[None].repeat(500, axis=0)
    draws = np.concatenate([multinomial(stream, rows, 1, range(500), 500)[:, 0] for _ in range(100)])
    observed = np.bincount(draws, minlength=5)
    assert stats.chisquare(observed, p * len(draws)).pvalue > 1e-3
    one_percent_off = np.array([0.41, 0.29, 0.2, 0.09, 0.01])
    assert stats.chisquare(observed, one_percent_off * len(draws)).pvalue < 1e-3

"""Samplers: functions that choose one token for each growing row from its scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..base.interface import softmax
from ..base.task import Draws, Sampler, Stream

Array = np.ndarray


def argmax(scores: Array, rows: Sequence[int], total: int) -> Array:
    """Return the best token of each row; the first of equal ones."""
    return scores.argmax(axis=-1)


def multinomial(stream: Stream, probabilities: Array, n: int, rows: Sequence[int], total: int) -> Array:
    """Compute ``torch.multinomial(p, n)`` on (total, V) probabilities, but only for the given rows: (len(rows), n) ids.

    The stream is consumed for the omitted rows too, as torch draws for rows that are finished. Draws are without
    replacement, the best p / q first.
    """
    V = probabilities.shape[-1]
    draws, out = stream.draw(total, V), []
    for p, row in zip(probabilities, rows, strict=True):
        places = np.flatnonzero(p)
        first = places[fastest(draws, p[places], row * V + places, n)]
        if len(first) < n:  # no other token has any probability: take the lowest remaining ids
            left = np.setdiff1d(np.arange(min(V, 2 * n)), first)
            first = np.append(first, left[: n - len(first)])
        out.append(first)
    return np.stack(out)


FEW_PLACES = 1000  # with no more places than this, all exponentials are computed


def fastest(draws: Draws, p: Array, places: Array, n: int) -> Array:
    """Return the n of (k,) probabilities with the highest p / q, highest first, where q are the draws at (k,) flat
    places.

    Logarithms are expensive, so where there are many places most are ruled out first: a lower bound of q gives an upper
    bound of p / q, and places that can't reach the n-th best known ratio are skipped.
    """
    if len(p) <= max(FEW_PLACES, n):
        return raced(draws, p, places, n)
    greatest = draws.least(places)
    with np.errstate(divide="ignore"):
        np.divide(p, greatest, out=greatest)
        some = np.argpartition(-greatest, n - 1)[:n] if n > 1 else np.array([greatest.argmax()])
        known = p[some] / draws.exponential(places[some])
    hopeful = np.flatnonzero(greatest >= known.min() * (1 - 1e-6))  # float32 rounds to within 1e-7
    return hopeful[raced(draws, p[hopeful], places[hopeful], n)]


def raced(draws: Draws, p: Array, places: Array, n: int) -> Array:
    """Return what `fastest` does, from all exponentials."""
    with np.errstate(divide="ignore"):
        race = p / draws.exponential(places)
    return (-race).argsort(kind="stable")[:n]


def from_stream(stream: Stream) -> Sampler:
    """Sample one token per row from softmax(scores): ``torch.multinomial(p, 1)`` of the stream."""

    def draw(scores: Array, rows: Sequence[int], total: int) -> Array:
        V = scores.shape[-1]
        draws, out = stream.draw(total, V), np.empty(len(scores), np.int64)
        for number, (row, values) in enumerate(zip(rows, scores, strict=True)):
            (places,) = (values > -np.inf).nonzero()  # few after a truncation, so that little is left to compute
            out[number] = places[fastest(draws, softmax(values[places]), row * V + places, 1)[0]]
        return out

    return draw


def seeded(seed: int | None, rng: str = "cpu", multiprocessors: int | None = None) -> Stream:
    """The stream of ``torch.manual_seed(seed)`` on the CPU, or on a CUDA device; without a seed the operating system
    draws one."""
    from .torch_rng import CPU, CUDA

    seed = seed if seed is not None else int.from_bytes(os.urandom(4), "little")
    if rng == "cpu":
        return CPU(seed)
    return CUDA(seed) if multiprocessors is None else CUDA(seed, multiprocessors)


def from_uniforms(uniforms: Sequence[float]) -> Sampler:
    """Draws given as data, one uniform in [0, 1) a token, by inversion: the first id whose cumulative probability
    (float64, in the order of ids) exceeds it. Rows take theirs in order at each step; ``ValueError`` when none is left.
    """
    source: Iterator[float] = iter(uniforms)

    def draw(scores: Array, rows: Sequence[int], total: int) -> Array:
        out = np.empty(len(scores), np.int64)
        for number, p in enumerate(softmax(scores.astype(np.float64))):
            u = next(source, None)
            if u is None:
                raise ValueError(f"uniforms must hold one number a token, got {len(uniforms)}")
            if not 0 <= u < 1:
                raise ValueError(f"uniforms must be in [0, 1), got {u}")
            total_mass = np.cumsum(p)
            out[number] = np.searchsorted(total_mass, u * total_mass[-1], side="right")
        return out

    return draw

"""Samplers: from the scores of the rows still growing to one token each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .interface import softmax
from .options import Options
from .torch_rng import CPU, CUDA, Draws, Stream

Array = np.ndarray

# (scores of the growing rows, their numbers, how many rows there are in all) → one id each.
Sampler = Callable[[Array, Sequence[int], int], Array]


def argmax(scores: Array, rows: Sequence[int], total: int) -> Array:
    """The best token of each row; the first of equals."""
    return scores.argmax(axis=-1)


def multinomial(stream: Stream, probabilities: Array, n: int, rows: Sequence[int], total: int) -> Array:
    """``torch.multinomial(p, n)`` on (total, V) probabilities, for the given rows of them alone: (len(rows), n) ids.

    The stream is drawn for the rows left out too, as torch draws for rows that are finished. Without replacement,
    best p / q first.
    """
    V = probabilities.shape[-1]
    draws = stream.draw(total, V)
    return np.stack([fastest(draws, p, row * V, n) for p, row in zip(probabilities, rows, strict=True)])


FEW = 1000  # exponentials are computed at once for no more places than these


def fastest(draws: Draws, p: Array, start: int, n: int) -> Array:
    """The n places of (V,) probabilities with the highest p / q, highest first, q being the draws from `start` on.

    Logarithms are dear, so where there are many places most are ruled out without: q has a least value, so p / q has a
    greatest, and what can't reach the n-th of the ratios already known has lost.
    """
    places = np.flatnonzero(p)
    with np.errstate(divide="ignore"):
        if len(places) > max(FEW, n):
            greatest = (p if len(places) == len(p) else p[places]) / draws.least(start + places)
            hopeful = places[np.argpartition(-greatest, n - 1)[:n]] if n > 1 else places[greatest.argmax(keepdims=True)]
            known = p[hopeful] / draws.exponential(start + hopeful)
            places = places[greatest >= known.min() * (1 - 1e-6)]  # float32 rounds to within 1e-7
        race = p[places] / draws.exponential(start + places)
    best = places[np.argsort(-race, kind="stable")[:n]]
    if len(best) < n:  # nothing else has any probability: the first places that are left
        left = np.setdiff1d(np.arange(min(len(p), 2 * n)), best)
        best = np.append(best, left[: n - len(best)])
    return best


def sampler(options: Options) -> Sampler:
    """The sampler that the options ask for; without a seed, one is drawn from the operating system."""
    if not options.do_sample:
        return argmax
    if options.uniforms is not None:
        return from_uniforms(options.uniforms)
    stream = seeded(options)
    return lambda scores, rows, total: multinomial(stream, softmax(scores), 1, rows, total)[:, 0]


def seeded(options: Options) -> Stream:
    """The stream of ``torch.manual_seed(seed)`` on the CPU, or on a CUDA device."""
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    if options.rng == "cpu":
        return CPU(seed)
    return CUDA(seed) if options.cuda_multiprocessors is None else CUDA(seed, options.cuda_multiprocessors)


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

"""Mirostat: truncation that steers the surprise of what is drawn towards a target. Basu et al. 2021.

As llama.cpp has it (``llama_sampler_mirostat_apply``, ``…_v2_apply``): a limit μ starts at twice the target τ, and
after each draw μ ← μ − η·(surprise − τ), the surprise being that of the drawn token, in bits, among those that stayed.
llama.cpp draws inside the sampler; here the loop draws, and the next step sees from the text what was drawn. So μ is a
function of the text alone, and rows share one object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from .errors import require
from .interface import NEVER, log_softmax
from .ranking import best
from .warpers import removed

Array = np.ndarray


class Mirostat(ABC):
    """What both versions share: the limit of each row, and how it learns from what was drawn."""

    def __init__(self, prompt_length: int, tau: float = 5.0, eta: float = 0.1) -> None:
        require(0 < tau < np.inf, "mirostat_tau must be above 0", tau)
        require(0 <= eta < np.inf, "mirostat_eta must be at least 0", eta)
        self.prompt_length, self.tau, self.eta = prompt_length, tau, eta
        # After each text of the newest step: its limit and the surprise, in bits, of every token that stayed.
        self.newest: dict[bytes, tuple[float, Array]] = {}

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, newest = np.empty_like(scores), {}
        for place, (row, text) in enumerate(zip(scores, ids, strict=True)):
            mu = self.limit(text)
            out[place] = removed(row, ~self.keep(row, mu))
            newest[text.tobytes()] = mu, bits(out[place])
        self.newest = newest
        return out

    def limit(self, text: Array) -> float:
        """μ after a text, which must continue one of the step before by one id."""
        if len(text) == self.prompt_length:
            return 2 * self.tau
        require(text[:-1].tobytes() in self.newest, "mirostat must see a text grow by one id at a time", text.tolist())
        mu, surprise = self.newest[text[:-1].tobytes()]
        return mu - self.eta * (float(surprise[text[-1]]) - self.tau)

    @abstractmethod
    def keep(self, row: Array, mu: float) -> Array:
        """Which of (V,) scores stay, as (V,) bool."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tau={self.tau}, eta={self.eta})"


class MirostatV1(Mirostat):
    """The k best stay, k such that Zipf's law with the exponent ŝ of the best m tokens meets the limit. Algorithm 1.

    Where the scores are so flat that k passes any bound, all stay (llama.cpp's int overflows there).
    """

    m = 100

    def keep(self, row: Array, mu: float) -> Array:
        there = int(np.count_nonzero(row > NEVER))
        if there < 2:
            return best(row, 1)
        m = min(self.m, there)
        top = np.sort(np.partition(row, -m)[-m:])[::-1].astype(np.float64)
        rank = np.arange(1, m)
        t, b = np.log((rank + 1) / rank), top[:-1] - top[1:]
        s = (t * b).sum() / (t * t).sum()
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            epsilon = s - 1
            # At s = 1 this is 0 ÷ 0, whose limit is 2^μ ÷ ln V; a flat top has s = 0.
            vocabulary = np.log(len(row)) if epsilon == 0 else (1 - float(len(row)) ** -epsilon) / epsilon
            k = (np.exp2(mu) / vocabulary) ** (1 / s if s else np.inf)
        return best(row, int(np.clip(k, 1, len(row))))


class MirostatV2(Mirostat):
    """What surprises by at most the limit stays, and the best token always. Section 5 of the paper's code."""

    def keep(self, row: Array, mu: float) -> Array:
        return (bits(row) <= mu) | best(row, 1)


def bits(row: Array) -> Array:
    """The surprise of each token, in bits."""
    return -log_softmax(row) / np.float32(np.log(2))

"""Mirostat: a truncation that controls the surprisal of the drawn tokens towards a target. Basu et al. 2021.

As llama.cpp has it (``llama_sampler_mirostat_apply``, ``…_v2_apply``): a limit μ starts at twice the target τ, and
after each draw μ ← μ − η·(surprise − τ), the surprise being that of the drawn token, in bits, among those that stayed.
llama.cpp draws inside the sampler; here the loop draws, and the next step sees from the text what was drawn. So μ is a
function of the text alone, and rows share one object.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.given import excluded
from ..base.interface import FORBIDDEN, log_softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.ranking import best
from ..base.value_types import NUMBER, WHOLE
from .truncation import removed

Array = np.ndarray

MIROSTAT = Option(
    "mirostat",
    WHOLE,
    choices=(1, 2),
    off=(0,),
    group="Samplers of other engines",
    help="Mirostat, version 1 or 2: hold the average surprise of drawn tokens at a target.",
    metavar="1|2",
)
TAU = Option(
    "mirostat_tau",
    NUMBER,
    otherwise=5.0,
    interval="(0, inf)",
    needs=("mirostat",),
    group="Samplers of other engines",
    help="Mirostat's target surprise, in bits.",
)
ETA = Option(
    "mirostat_eta",
    NUMBER,
    otherwise=0.1,
    interval="[0, inf)",
    needs=("mirostat",),
    group="Samplers of other engines",
    help="Mirostat's learning rate.",
)


class Mirostat(ABC):
    """The base of both versions: the limit of each row, and its update after each draw."""

    def __init__(self, prompt_length: int, tau: float = TAU.otherwise, eta: float = ETA.otherwise) -> None:
        TAU.check(tau)
        ETA.check(eta)
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
        """Return μ after a text, which must continue one of the step before by one id."""
        if len(text) == self.prompt_length:
            return self.finite(2 * self.tau)
        require(text[:-1].tobytes() in self.newest, "mirostat must see a text grow by one id at a time", text.tolist())
        mu, surprise = self.newest[text[:-1].tobytes()]
        seen = float(surprise[text[-1]])
        learned = mu - self.eta * (seen - self.tau)
        return self.finite(learned) if math.isfinite(mu) and math.isfinite(seen) else learned

    def finite(self, mu: float) -> float:
        """Return a limit; ``ValueError`` if the settings have moved it out of float64."""
        require(math.isfinite(mu), "mirostat_tau and mirostat_eta must keep the limit finite", (self.tau, self.eta))
        return mu

    @abstractmethod
    def keep(self, row: Array, mu: float) -> Array:
        """Return which of (V,) scores are kept, as (V,) bool."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tau={self.tau}, eta={self.eta})"


class MirostatV1(Mirostat):
    """Keeps the k best tokens, where Zipf's law with the exponent ŝ of the best m tokens meets the limit at k.
    Algorithm 1.

    Where the scores are so flat that k passes any bound, all stay (llama.cpp's int overflows there).
    """

    m = 100

    def keep(self, row: Array, mu: float) -> Array:
        there = int(np.count_nonzero(row > FORBIDDEN))
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
    """Keeps tokens whose surprisal is at most the limit, and always the best one. Section 5 of the paper's code."""

    def keep(self, row: Array, mu: float) -> Array:
        return (bits(row) <= mu) | best(row, 1)


def bits(row: Array) -> Array:
    """Return the surprisal of each token, in bits."""
    return -log_softmax(row) / np.float32(np.log(2))


class _Steps:
    """What learns from a text, at its end: `earlier` rows of scores are what it saw before each of the newest ids."""

    def __init__(self, kind: Callable[..., Any], earlier: Sequence[Sequence[float]], tau: float, eta: float) -> None:
        self.kind, self.earlier, self.tau, self.eta = kind, earlier, tau, eta

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        start = len(ids[0]) - len(self.earlier)
        mirostat = self.kind(start, self.tau, self.eta)
        for place, row in enumerate(self.earlier):
            mirostat([ids[0][: start + place]], np.array([row], np.float32))
        return mirostat(ids, scores)


def make(place: Place, mirostat: int, mirostat_tau: float, mirostat_eta: float) -> Mirostat:
    """Build the version that was asked for."""
    return (MirostatV1 if mirostat == 1 else MirostatV2)(place.prompt_length, mirostat_tau, mirostat_eta)


def check(options: Any) -> None:
    """Check that it is the only truncation; in llama.cpp it follows only the temperature, so penalties would be
    ignored.
    """
    for method in options.acting:
        if method.only == "sampling" and method.name not in ("temperature", "mirostat"):
            excluded("mirostat", options, *method.askers)
    if options.profile == "llama.cpp":
        penalties = ("repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier")
        excluded("mirostat in llama.cpp", options, *penalties)


_EARLIER = [[0.5, 0.0, 0.5, 1.0, -1.0, 0.0, 0.25, -0.5]] * 2

METHODS = (
    Method(
        "mirostat",
        options=(MIROSTAT, TAU, ETA),
        make=make,
        only="sampling",
        excludes=("num_beams", "best_of", "dola_layers"),
        check=check,
        has_past=True,
        documentation=(
            Documentation(
                "mirostat",
                what="The distribution is truncated so that drawn tokens have a surprise of τ bits on average.",
                formula=r"-\log_2 p_i \le \mu, \quad \mu \leftarrow \mu - \eta\,(S - \tau)",
                source="Basu et al. 2021, version 2",
                when="Long texts that drift into repetition or incoherence.",
                example={"mirostat": 2, "mirostat_tau": 3.0},
                random=True,
            ),
            Documentation(
                "mirostat, version 1",
                what="The same target is reached by top-k, with a k that follows from Zipf's law.",
                formula=r"k = \left(\frac{\hat\epsilon\,2^\mu}{1 - V^{-\hat\epsilon}}\right)^{1/\hat s}",
                source="Basu et al. 2021, algorithm 1",
                when="To compare with the paper; version 2 is simpler.",
                example={"mirostat": 1, "mirostat_tau": 3.0},
                random=True,
            ),
        ),
        costs=(Cost({"mirostat": 2}), Cost({"mirostat": 1}, title="mirostat (version 1)")),
        vectors=(
            Vectors(
                "mirostat_1",
                lambda tau, eta, earlier: _Steps(MirostatV1, earlier, tau, eta),
                ([2.0, 0.1, []], [2.0, 0.5, _EARLIER]),
            ),
            Vectors(
                "mirostat_2",
                lambda tau, eta, earlier: _Steps(MirostatV2, earlier, tau, eta),
                ([1.0, 0.1, []], [2.0, 0.5, _EARLIER]),
            ),
        ),
    ),
)

"""Likelihoods: how well a model predicts a text alone, after a prompt, and compared with other choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import display
from ..display import Readable
from ..model.ops import log_normalizer
from ..model.taps import no_tap
from ..session.model import Model
from ..system.threads import blas_threads, evenly, on_threads

By = Literal["sum", "token", "byte"]
BLOCK = 256  # positions whose logits are held at a time
LARGEST = 709  # the largest x for which a float holds e^x


@dataclass(frozen=True, repr=False)
class Score:
    """The quality of the prediction of a text: ``nll`` in nats, summed over ``tokens`` ids that stand for ``bytes``
    bytes.

    Examples:
        >>> from gpt2_np import Score
        >>> score = Score(nll=6.0, tokens=3, bytes=10)
        >>> round(score.perplexity, 2), round(score.bits_per_byte, 3)
        (7.39, 0.866)
    """

    nll: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The bits that it takes to encode one byte of the text: comparable between tokenizers; NaN without a text."""
        return self.nll / math.log(2) / self.bytes if self.bytes else math.nan

    @property
    def perplexity(self) -> float:
        """e to the power of the mean loss per token; infinite if a float can't hold it."""
        mean = self.nll / self.tokens
        return math.exp(mean) if mean < LARGEST else math.inf

    def __repr__(self) -> str:
        return display.described(self, perplexity=self.perplexity, bits_per_byte=self.bits_per_byte)

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("nats in all", self.nll),
            ("tokens", self.tokens),
            ("bytes", self.bytes),
            ("nats a token", self.nll / self.tokens),
            ("perplexity", self.perplexity),
            ("bits a byte", self.bits_per_byte),
        ]
        return display.boxed(display.table(rows), title="Score")


@dataclass(frozen=True, repr=False)
class Choice(Readable):
    """One of several continuations: its place among those given, and the log-probability (nats) of its ids.

    ``share`` is its probability among the choices: all shares add up to 1, by the measure that ranked them.
    """

    choice: Any
    index: int
    ids: list[int]
    logprob: float
    bytes: int
    share: float = math.nan

    @property
    def per_token(self) -> float:
        """The mean log-probability of a token (nats)."""
        return self.logprob / len(self.ids)

    @property
    def per_byte(self) -> float:
        """The log-probability over the choice's bytes (nats): it doesn't favour texts of few tokens."""
        return self.logprob / self.bytes if self.bytes else math.nan

    def by(self, measure: By) -> float:
        """Return the value that choices are ranked by."""
        return {"sum": self.logprob, "token": self.per_token, "byte": self.per_byte}[measure]


def nll(
    model: Model,
    ids: np.ndarray,
    first: int,
    stride: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> float:
    """Return the summed loss (nats) of (n,) ids from place `first` on, which is at least 1; see `GPT2.score`.

    ``ValueError`` for a stride that can't be.
    """
    context = model.config.n_positions
    total = 0.0
    for start, end, known in windows(len(ids) - 1, context, stride_of(stride, context)):
        if end >= first:
            known = max(known, first - 1)
            total += window_loss(model, ids[start : end + 1], known - start)
        if progress is not None:
            progress(end - known)
    return float(total)


def window_loss(model: Model, ids: np.ndarray, known: int) -> float:
    """Return the summed loss (nats) of one window's ids, (n + 1,), after the first `known` + 1 of them.

    The window is read in blocks of BLOCK positions, so that only one block's logits are in memory. Edits may need the
    whole window, so an edited model reads it at once.
    """
    session, count, total = model.start(capacity=len(ids) - 1), len(ids) - 1, 0.0
    if model.tap is not no_tap:
        return float(losses(session.feed_all(ids[None, :-1])[0][known:], ids[known + 1 :]).sum())
    if known:  # these losses don't count, so no logits are needed
        session.feed(ids[None, :known])
    for start in range(known, count, BLOCK):
        some = slice(start, min(start + BLOCK, count))
        total += losses(session.feed_all(ids[None, some])[0], ids[some.start + 1 : some.stop + 1]).sum()
    return float(total)


def nlls(model: Model, rows: Sequence[tuple[Sequence[int], int]]) -> list[float]:
    """Return the summed loss (nats) of rows of ids, each from its own place on, in one run: `nll` for many short texts.

    Each row must fit in the context, without its last id. Rows are padded on the right, where no earlier position
    looks.
    """
    longest = max(len(ids) for ids, _ in rows) - 1
    batch = np.zeros((len(rows), longest), np.int64)
    for place, (ids, _) in zip(batch, rows, strict=True):
        place[: len(ids) - 1] = ids[:-1]
    logits = model.forward(batch)
    model.check_logits(logits, batch)
    return [
        float(losses(row[first - 1 : len(ids) - 1], np.array(ids[first:])).sum())
        for row, (ids, first) in zip(logits, rows, strict=True)
    ]


def batches(rows: Sequence[int], lengths: Sequence[int], tokens: int = 2048) -> Iterator[list[int]]:
    """Group rows' numbers into batches of similar lengths, of about the given size in tokens, padding included."""
    some: list[int] = []
    for row in sorted(rows, key=lambda row: -lengths[row]):
        if some and lengths[some[0]] * (len(some) + 1) > tokens:
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def rank(
    model: Model,
    prefix: Sequence[int],
    choices: Sequence[Any],
    rests: Sequence[Sequence[int]],
    lengths: Sequence[int],
    by: By,
) -> list[Choice]:
    """Rank the choices, best first, whose ids `rests` continue one prefix; it is read once, and `lengths` are bytes."""
    context, longest = model.config.n_positions, max(map(len, rests))
    if len(prefix) + longest > context:
        raise ValueError(
            f"the prompt and a choice must have at most {context} tokens, the model's context, "
            f"got {len(prefix) + longest}"
        )
    session = model.start(capacity=len(prefix) + longest)
    first = session.feed([list(prefix)])
    session.reorder([0] * len(rests))
    further = session.feed_all([list(rest) for rest in rests])
    found = []
    for index, (choice, rest, logits, size) in enumerate(zip(choices, rests, further, lengths, strict=True)):
        cost = losses(np.concatenate([first, logits[:-1]]), np.array(rest))
        found.append(Choice(choice, index, [int(token) for token in rest], -float(cost.sum()), size))
    values = np.array([one.by(by) for one in found])
    if np.isnan(values).any():
        raise ValueError("by 'byte' needs choices that stand for at least one byte of text")
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    ranked = [
        Choice(one.choice, one.index, one.ids, one.logprob, one.bytes, float(share))
        for one, share in zip(found, shares, strict=True)
    ]
    return sorted(ranked, key=lambda one: -one.by(by))


def losses(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return each id's loss: minus its log-probability (nats, float64), (n, V) logits and (n,) ids → (n,)."""
    found = np.empty(len(ids))

    def work(some: slice) -> None:
        # One row at a time, since a row fits in a core's cache.
        for place, row, token in zip(range(some.start, some.stop), logits[some], ids[some], strict=True):
            found[place] = log_normalizer(row) - row[token]

    on_threads(work, evenly(len(ids), max(1, min(len(ids), 4 * blas_threads()))), blas_threads())
    return found


def stride_of(stride: int | None, context: int) -> int:
    """Return the distance between windows in tokens: half the context unless given. ``ValueError`` for an invalid
    one.
    """
    stride = context // 2 if stride is None else stride
    if isinstance(stride, bool) or not isinstance(stride, (int, np.integer)) or not 1 <= stride <= context:
        raise ValueError(f"stride must be a whole number between 1 and {context}, got {stride!r}")
    return int(stride)


def windows(tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, known): feed ids[start:end], and count the predictions from position `known` on.

    For `tokens` ids after a first one, the windows together count each exactly once.
    """
    known = 0
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        yield start, end, known
        known = end
        if end == tokens:
            return

"""Pairs of a clean and a corrupted prompt of equal length, as texts or ids: one pair or a data set of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...display import Readable
from ...gradients.metrics import LogitDifference, LogProbability
from ...gradients.run import prepared
from ...session.model import Model

Array = np.ndarray
Prompt = str | Sequence[int] | Array
Prompts = Prompt | Sequence[Prompt]  # one, or one for each pair


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Readable):
    """Pairs of rows of ids: ``clean[i]`` and ``corrupted[i]`` are (T,), T may differ from pair to pair.

    ``one`` says that a single pair was given, not a data set of one.
    """

    clean: list[Array]
    corrupted: list[Array]
    one: bool

    def __len__(self) -> int:
        return len(self.clean)

    def batches(self, tokens: int) -> Iterator[tuple[Array, Array, Array]]:
        """Group pairs of one length into batches of about `tokens` tokens: which, (b,), and their ids, (b, T)."""
        lengths = np.array([len(row) for row in self.clean])
        for length in np.unique(lengths):
            which = np.flatnonzero(lengths == length)
            size = max(1, tokens // int(length))
            for start in range(0, len(which), size):
                some = which[start : start + size]
                yield some, np.stack([self.clean[i] for i in some]), np.stack([self.corrupted[i] for i in some])


def pairs_of(model: Model, clean: Prompts, corrupted: Prompts, *, prepend_bos: bool = False) -> Pairs:
    """Return the pairs that two prompts, or two equally long lists of prompts, form.

    A prompt is a text or its ids; with `prepend_bos` texts begin with the model's begin-of-text. ``ValueError`` names
    both prompts of a pair whose numbers of tokens differ.
    """
    one = not is_several(clean)
    if one is is_several(corrupted):
        raise ValueError("clean and corrupted must both be one prompt or both be a list of prompts")
    left, right = ([clean], [corrupted]) if one else (list(clean), list(corrupted))
    if len(left) != len(right) or not left:
        raise ValueError(f"every clean prompt needs its corrupted one, got {len(left)} and {len(right)}")
    before, after = ([ids_of(model, prompt, prepend_bos=prepend_bos) for prompt in side] for side in (left, right))
    for first, second, one_row, other_row in zip(left, right, before, after, strict=True):
        if len(one_row) != len(other_row):
            raise ValueError(
                "the clean and the corrupted prompt must have equally many tokens, "
                f"got {len(one_row)} in {_shown(first)} and {len(other_row)} in {_shown(second)}"
            )
    return Pairs(before, after, one)


def is_several(prompts: Prompts) -> bool:
    """Tell whether this is a list of prompts, and not one prompt."""
    if isinstance(prompts, str):
        return False
    if isinstance(prompts, np.ndarray):
        return prompts.ndim > 1
    return any(isinstance(one, str) or np.ndim(one) for one in prompts)


def ids_of(model: Model, prompt: Any, *, prepend_bos: bool = False) -> Array:
    """One prompt's ids, (T,), as `Model.to_ids` gives them; checked."""
    ids = model.to_ids(prompt, prepend_bos=prepend_bos)
    batch = model.check_ids(ids)
    if len(batch) != 1 or np.ndim(ids) != 1:
        raise ValueError(f"a prompt must be a text or one row of ids, got ids of shape {np.shape(ids)}")
    row: Array = batch[0]
    return row


def _shown(prompt: Any) -> str:
    text = repr(prompt) if isinstance(prompt, str) else repr(np.asarray(prompt).tolist())
    return text if len(text) <= 60 else f"{text[:57]}..."


def measure(metric: Any, model: Model) -> Any:
    """Return the metric with its tokens as ids. ``ValueError`` names what it lacks, such as a derivative."""
    return prepared(metric, model)


def of_rows(metric: Any, rows: Array, count: int) -> Any:
    """Return a metric of `count` rows for some of them, in this order; a row may occur more than once."""
    if not hasattr(metric, "of_row") or (len(rows) == count and (rows == np.arange(count)).all()):
        return metric
    return OfRows(tuple(metric.of_row(int(row)) for row in rows))


@dataclass(frozen=True, eq=False)
class OfRows:
    """A metric made of one metric per row."""

    each: tuple[Any, ...]

    def value(self, logits: Array, ids: Array) -> Array:
        """Return (B,) values."""
        return np.concatenate([one.value(logits[i : i + 1], ids[i : i + 1]) for i, one in enumerate(self.each)])

    def gradient(self, logits: Array, ids: Array) -> Array:
        """Return the gradient of their sum: (B, T, V)."""
        return np.concatenate([one.gradient(logits[i : i + 1], ids[i : i + 1]) for i, one in enumerate(self.each)])

    def of_row(self, row: int) -> Any:
        """Return the metric of one row."""
        return self.each[row]


def at_last(metric: Any) -> bool:
    """Tell whether a metric reads the logits of each row's last position alone, wherever that position is."""
    if isinstance(metric, OfRows):
        return all(at_last(one) for one in metric.each)
    known = type(metric) in (LogitDifference, LogProbability)
    return known and bool(np.ndim(metric.position) == 0 and metric.position == -1)


def values(metric: Any, logits: Array, ids: Array) -> Array:
    """Return a metric's values in float64: (b,)."""
    return np.asarray(metric.value(logits, ids), np.float64)

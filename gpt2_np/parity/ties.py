"""The verdict on differing tokens: rounding or a defect?

A decoder is one function of the logits that it is fed. Run on torch's logits, ours must therefore write what torch
wrote; where it does, and writes something else on our logits, then a boundary of that function lies between the two:
two candidates, two beams or two races of a draw that change places, or a token at the edge of a truncation. Such a
divergence is a near-tie when both logits, *as the decoder was fed them*, step by step from a cache, are within rounding
of the float64 truth. How near the tie is gets measured too: the logits are moved from torch's towards ours until the
choice turns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from decoders.base.interface import Stepper

from ..display import Readable
from ..text.gpt2 import GPT2
from .checks import Check, numbers

Array = np.ndarray
Decode = Callable[[GPT2], list[int]]
ROUNDS = 6  # halvings of the way from torch's logits to ours


class Recorder(Readable):
    """A session that remembers which texts it was fed, step by step, and the logits that it answered with."""

    def __init__(self, session: Stepper) -> None:
        self.session = session
        self.texts: list[tuple[int, ...]] | None = None
        self.steps: list[list[tuple[int, ...]]] = []
        self.logits: dict[tuple[int, ...], Array] = {}

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        rows = [tuple(int(token) for token in row) for row in ids]
        self.texts = [old + new for old, new in zip(self.texts or [()] * len(rows), rows, strict=True)]
        logits = self.session.feed(ids)
        self.steps.append(self.texts)
        self.logits.update(zip(self.texts, logits, strict=True))
        return logits

    def reorder(self, rows: Sequence[int]) -> None:
        assert self.texts is not None, "nothing was fed yet"
        self.texts = [self.texts[int(row)] for row in rows]
        self.session.reorder(rows)


class Between(Readable):
    """Two sessions fed alike, answering with logits on the way from the first's to the second's."""

    def __init__(self, first: Stepper, second: Stepper, share: float) -> None:
        self.first, self.second, self.share = first, second, share

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        first, second = self.first.feed(ids), self.second.feed(ids)
        return first + np.float32(self.share) * (second - first)

    def reorder(self, rows: Sequence[int]) -> None:
        self.first.reorder(rows)
        self.second.reorder(rows)


def started(model: GPT2, start: Callable[..., Stepper]) -> GPT2:
    """The same model, its sessions made by `start`."""
    other = copy.copy(model)
    vars(other)["start"] = start
    return other


def recorded(model: GPT2, decode: Decode) -> tuple[list[int], Recorder]:
    """Return what `decode` writes on a model, and everything that the model was fed."""
    made: list[Recorder] = []

    def start(**settings: Any) -> Recorder:
        made.append(Recorder(model.start(**settings)))
        return made[-1]

    tokens = decode(started(model, start))
    assert len(made) == 1, f"a decoder must start one session, got {len(made)}"
    return tokens, made[0]


def judge(
    name: str, ours: GPT2, theirs: GPT2, truth: GPT2, ids: Sequence[int], decode: Decode, expected: list[int]
) -> Check:
    """The verdict on what `decode` writes, where torch wrote `expected`: the same, a near-tie, or a mismatch."""
    found, mine = recorded(ours, decode)
    if found == expected:
        return Check(name, "same", note=f"{len(found)} tokens")
    at = next(place for place, (a, b) in enumerate(zip_longest(found, expected)) if a != b)
    pair = [sequence[at] if at < len(sequence) else None for sequence in (found, expected)]
    replayed, their = recorded(theirs, decode)
    check = numbers(name, *side_by_side(mine, their, truth, len(ids)))
    note = f"token {at}: ours {pair[0]}, torch's {pair[1]}{apart(truth, [*ids, *expected[:at]], pair)}"
    if replayed != expected:
        note += "; our decoder on torch's logits gives NOT the same as transformers"
        return Check(name, "mismatch", check.difference, f"token {at}", check.ours, check.theirs, note)
    if not check.passed:
        note += "; our logits on the way there are farther from float64 than rounding takes them"
        return Check(name, "mismatch", check.difference, f"token {at}", check.ours, check.theirs, note)
    share = turning(ours, theirs, decode, expected)
    note += (
        f"; the choice turns {share * check.difference:.1e} from torch's logits, {share:.0%} of the way to ours; "
        f"on torch's logits our decoder gives the same as transformers"
    )
    return Check(name, "near-tie", check.difference, f"token {at}", check.ours, check.theirs, note)


def side_by_side(mine: Recorder, their: Recorder, truth: GPT2, prompt: int) -> list[Array]:
    """(n, V) logits of ours, torch's and float64's, after every text that led to the step where the two part."""
    shared = 0
    while shared < min(len(mine.steps), len(their.steps)) and mine.steps[shared] == their.steps[shared]:
        shared += 1
    rows: list[tuple[Array, Array, Array]] = []
    for text in dict.fromkeys(mine.steps[shared - 1]):
        exact = truth.forward(np.array([text]))[0]
        for end in range(prompt, len(text) + 1):
            if text[:end] in mine.logits and text[:end] in their.logits:
                rows.append((mine.logits[text[:end]], their.logits[text[:end]], exact[end - 1]))
    return [np.stack(column) for column in zip(*rows, strict=True)]


def apart(truth: GPT2, text: list[int], pair: list[int | None]) -> str:
    """Describe the distance of two candidates' float64 logits after a text."""
    if None in pair:
        return ""
    logits = truth.forward(np.array([text]), last_only=True)[0, -1]
    return f", logits {abs(float(logits[pair[0]] - logits[pair[1]])):.1e} apart in float64"


def turning(ours: GPT2, theirs: GPT2, decode: Decode, expected: list[int]) -> float:
    """Which share of the way from torch's logits to ours it takes to write something else than torch did."""
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        share = (low + high) / 2

        def start(share: float = share, **settings: Any) -> Between:
            return Between(theirs.start(**settings), ours.start(**settings), share)

        if decode(started(theirs, start)) == expected:
            low = share
        else:
            high = share
    return high

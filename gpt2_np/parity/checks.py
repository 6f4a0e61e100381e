"""One comparison and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray
Verdict = Literal["same", "near-tie", "mismatch"]

# How much farther from the float64 truth than torch we may be, and what counts as rounding in any case.
FARTHER, ROUNDING = 4.0, 2e-6


@dataclass(frozen=True)
class Check:
    """What was compared and what came out.

    ``difference`` is the largest between the two sides and ``where`` its place; ``ours`` and ``theirs`` are each
    side's largest distance from the float64 truth. A "near-tie" is a token that differs because two candidates are
    closer than those distances; a "mismatch" is a defect.
    """

    name: str
    verdict: Verdict
    difference: float = 0.0
    where: str = ""
    ours: float | None = None
    theirs: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong: only a mismatch is."""
        return self.verdict != "mismatch"


def numbers(name: str, ours: Array, theirs: Array, truth: Array) -> Check:
    """Compare two float32 results in the light of the float64 truth.

    They are the same when ours is no farther from the truth than four times torch's distance, or than 2e-6 of the
    truth's largest entry: float32 sums in another order differ by that.
    """
    if ours.shape != theirs.shape:
        return Check(name, "mismatch", float("inf"), "shape", note=f"{ours.shape} against {theirs.shape}")
    difference = np.abs(ours.astype(np.float64) - theirs)
    place = np.unravel_index(np.argmax(difference), difference.shape)
    mine, their = float(np.abs(ours - truth).max()), float(np.abs(theirs - truth).max())
    allowed = max(FARTHER * their, ROUNDING * max(1.0, float(np.abs(truth).max())))
    verdict: Verdict = "same" if mine <= allowed else "mismatch"  # NaN compares as a mismatch
    return Check(name, verdict, float(difference[place]), str([int(index) for index in place]), mine, their)

"""One comparison and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray
Verdict = Literal["same", "near-tie", "mismatch", "left out"]

# The worst entry of one tensor is an extreme of many roundings, and a model with large weights carries an early one
# through all that follows, so the ratio of ours to torch's varies with no defect on either side. Over random models of
# four shapes, tiny to gpt2-medium's: a single tensor up to 6.2 and the median of a model's up to 1.76 beside torch on
# two CPUs (some 80 and 150 models; on the first an OpenBLAS product rounds 1.4 times as much as MKL's), up to 8.6 and
# 2.09 beside an H100 (the same 150), which adds in more and shorter sums. What counts as rounding in any case is last.
FARTHER, TOGETHER, ROUNDING = 12.0, {"cpu": 2.0, "cuda": 3.0}, 2e-6


@dataclass(frozen=True)
class Check:
    """One comparison and its result.

    ``difference`` is the largest between the two sides and ``where`` its place; ``ours`` and ``theirs`` are each
    side's largest distance from the float64 truth. A "near-tie" is a token that differs because two candidates are
    closer than those distances; a "mismatch" is a defect; "left out" is what wasn't there to be compared.
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
        """Whether nothing is wrong; only a mismatch is."""
        return self.verdict != "mismatch"


def numbers(name: str, ours: Array, theirs: Array, truth: Array) -> Check:
    """Compare two float32 results in the light of the float64 truth.

    They are the same when ours is no farther from the truth than twelve times torch's distance, or than 2e-6 of
    the truth's largest entry: float32 sums in another order differ by that. `rounding` is the sharper test of many.

    Examples:
        >>> import numpy as np
        >>> from gpt2_np.parity import numbers
        >>> truth = np.linspace(0, 1, 5)
        >>> numbers("a tensor", truth.astype(np.float32), truth.astype(np.float32), truth).verdict
        'same'
        >>> numbers("a tensor", (truth + 0.1).astype(np.float32), truth.astype(np.float32), truth).verdict
        'mismatch'
    """
    if ours.shape != theirs.shape:
        return Check(name, "mismatch", float("inf"), "shape", note=f"{ours.shape} against {theirs.shape}")
    difference = np.abs(ours.astype(np.float64) - theirs)
    place = np.unravel_index(np.argmax(difference), difference.shape)
    mine, their = float(np.abs(ours - truth).max()), float(np.abs(theirs - truth).max())
    allowed = max(FARTHER * their, ROUNDING * max(1.0, float(np.abs(truth).max())))
    verdict: Verdict = "same" if mine <= allowed else "mismatch"  # NaN compares as a mismatch
    return Check(name, verdict, float(difference[place]), str([int(index) for index in place]), mine, their)


def rounding(checks: Sequence[Check], device: str = "cpu") -> Check:
    """Check that ours rounds as well as torch does, over many comparisons: the median of their ratios is at most 2, or
    3 if torch is on a CUDA device.
    """
    ratios = [check.ours / check.theirs for check in checks if check.ours is not None and check.theirs]
    median = float(np.median(ratios)) if ratios else 1.0
    note = f"of {len(ratios)} tensors: our distance from float64 as a multiple of torch's, median {median:.2f}"
    return Check("rounding of all together", "same" if median <= TOGETHER[device] else "mismatch", note=note)

"""Quadratic smoothing: scores are bent by their distance from the best one, instead of a temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import NUMBER
from ..base.watching import possible

Array = np.ndarray

FACTOR = Option(
    "smoothing_factor",
    NUMBER,
    interval="(0, inf)",
    off=(0,),
    group="Samplers of other engines",
    help="Quadratic sampling: transform scores by their squared distance from the best.",
)
CURVE = Option(
    "smoothing_curve",
    NUMBER,
    otherwise=1.0,
    off=(1,),
    interval="[1, inf)",
    needs=("smoothing_factor",),
    group="Samplers of other engines",
    help="Above 1: unlikely tokens fall more steeply.",
)


@dataclass(frozen=True)
class Smoothing:
    """max + f · (s d³ − k d²), d ≤ 0 being a score's distance from the best, k = (3 − c) / 2, s = (c − 1) / 2.

    kalomaze's quadratic sampling, as text-generation-webui and KoboldCpp have it: what is near the best comes nearer,
    what is far goes further. With a curve c above 3 what is near may pass the best.
    """

    factor: float
    curve: float = CURVE.otherwise

    def __post_init__(self) -> None:
        FACTOR.check(self.factor)
        CURVE.check(self.curve)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        highest = scores.max(axis=-1, keepdims=True)
        k, s = (3 - self.curve) / 2, (self.curve - 1) / 2
        with np.errstate(over="ignore", invalid="ignore"):
            d = scores - highest
            bent = highest + self.factor * d * d * (s * d - k)
        return np.where(possible(scores), bent, scores).astype(scores.dtype, copy=False)


METHODS = (
    Method(
        "smoothing_factor",
        options=(FACTOR, CURVE),
        make=lambda place, smoothing_factor, smoothing_curve: Smoothing(smoothing_factor, smoothing_curve),
        only="sampling",
        documentation=(
            Documentation(
                "smoothing_factor",
                what=(
                    "Scores near the best move towards it and distant ones move away; the curve makes unlikely "
                    "tokens fall more steeply."
                ),
                formula=r"z_i \leftarrow z_1 + f\,(s\,d_i^3 - k\,d_i^2),\quad d_i = z_i - z_1",
                source="kalomaze 2024; text-generation-webui",
                when="Instead of a temperature with truncation, for variety among good tokens; 0.2 to 0.3.",
                example={"smoothing_factor": 0.3, "smoothing_curve": 1.5},
                random=True,
            ),
        ),
        costs=(Cost({"smoothing_factor": 0.25}),),
        vectors=(Vectors("smoothing", Smoothing, ([0.25], [1.5, 2.0], [0.3, 4.0])),),
    ),
)

"""Temperature: scores are divided by a number, which is fixed or follows the entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.given import excluded
from ..base.interface import FORBIDDEN, LogitsProcessor, softmax
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.ranking import best
from ..base.value_types import NUMBER
from .truncation import removed

Array = np.ndarray

TEMPERATURE = Option(
    "temperature",
    NUMBER,
    interval="(0, inf)",
    off=(1,),
    hints={0: "leave do_sample out for greedy decoding"},
    group="Sampling",
    help="Below 1 sharpens the distribution, above 1 flattens it.",
)
RANGE = Option(
    "dynatemp_range",
    NUMBER,
    interval="(0, inf)",
    off=(0,),
    group="Samplers of other engines",
    help="Dynamic temperature: let it vary by this much, with the entropy.",
)
EXPONENT = Option(
    "dynatemp_exponent",
    NUMBER,
    otherwise=1.0,
    interval="(0, inf)",
    needs=("dynatemp_range",),
    group="Samplers of other engines",
    help="The exponent by which the dynamic temperature follows the entropy.",
)


OR_ZERO = "[0, inf)"  # the range in engines where a temperature of 0 means greedy


@dataclass(frozen=True)
class Temperature:
    """Divides scores by the temperature: below 1 sharpens, above 1 flattens. Ackley et al. 1985."""

    temperature: float

    def __post_init__(self) -> None:
        TEMPERATURE.check(self.temperature)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return scores / scores.dtype.type(self.temperature)


@dataclass(frozen=True)
class DynamicTemperature:
    """Uses a temperature between t − range and t + range: the surer the distribution, the lower.

    ``llama_sampler_temp_ext_apply``: low + (high − low)·(entropy ÷ its maximum) ** exponent, the maximum being the
    logarithm of how many tokens are left. At temperature 0 only the best stays.
    """

    temperature: float
    range: float
    exponent: float = 1.0

    def __post_init__(self) -> None:
        TEMPERATURE.check(self.temperature, OR_ZERO)
        RANGE.check(self.range)
        EXPONENT.check(self.exponent)

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([self.row(row) for row in scores])

    def row(self, row: Array) -> Array:
        """(V,) scores divided by the temperature that their entropy asks for."""
        there = np.count_nonzero(row > FORBIDDEN)
        if there < 2:
            return row
        p = softmax(row)
        p = p[p > 0]
        entropy = float(-(p * np.log(p)).sum())
        low, high = max(0.0, self.temperature - self.range), self.temperature + self.range
        temperature = row.dtype.type(low + (high - low) * max(0.0, entropy / np.log(there)) ** self.exponent)
        return row / temperature if temperature > 0 else removed(row, ~best(row, 1))


@dataclass(frozen=True)
class Greedy:
    """Keeps only the best token: the meaning of a temperature of 0 in engines that know it."""

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        return np.stack([removed(row, ~best(row, 1)) for row in scores])


def make(
    place: Place, temperature: float | None, dynatemp_range: float | None, dynatemp_exponent: float
) -> LogitsProcessor | None:
    """Build the fixed temperature, or the one that follows the entropy; None at temperature 1."""
    if dynatemp_range is not None:
        return DynamicTemperature(1.0 if temperature is None else temperature, dynatemp_range, dynatemp_exponent)
    if temperature == 0:
        return Greedy()
    return None if temperature is None or temperature == 1 else Temperature(temperature)


def check(options: Any) -> None:
    """mlx-lm's temperature of 0 takes the best token whatever the samplers say; XTC alone would have removed it."""
    if options.temperature == 0 and options.profile == "mlx-lm":
        excluded("a temperature of 0 in mlx-lm", options, "xtc_probability")


METHODS = (
    Method(
        "temperature",
        options=(TEMPERATURE, RANGE, EXPONENT),
        make=make,
        check=check,
        asked=("temperature", "dynatemp_range"),
        only="sampling",
        documentation=(
            Documentation(
                "temperature",
                what="The whole distribution is sharpened (below 1) or flattened (above 1).",
                formula=r"p'_i \propto p_i^{1/T}",
                source="Ackley, Hinton, Sejnowski 1985",
                when="The first option to try: 0.7 to 1 for text that should stay coherent.",
                example={"temperature": 0.5},
                random=True,
            ),
            Documentation(
                "dynatemp_range",
                what="The temperature follows the entropy: it is low where the model is sure, and high where it isn't.",
                formula=r"T = T_{lo} + (T_{hi} - T_{lo})\,(H / \ln n)^{e}",
                source="llama.cpp, `llama_sampler_temp_ext_apply`",
                when="When one temperature is too dull in some places and too wild in others.",
                example={"temperature": 0.8, "dynatemp_range": 0.6},
                random=True,
            ),
        ),
        costs=(
            Cost({"temperature": 0.8}),
            Cost({"temperature": 0.8, "dynatemp_range": 0.5}, title="temperature (dynamic)"),
        ),
        vectors=(
            Vectors("temperature", Temperature, ([0.7], [2.0])),
            Vectors("temperature 0", Greedy, ([],)),
            Vectors("llama.cpp dynamic_temperature", DynamicTemperature, ([1.0, 0.5], [0.5, 0.5, 2.0])),
        ),
    ),
)

"""The green-list watermark and its detector. Kirchenbauer et al. 2023, "On the Reliability of Watermarks".

What the text says so far seeds a generator that splits the vocabulary: green tokens gain a bias, and a text with more
green tokens than chance allows was written so. As transformers' ``WatermarkLogitsProcessor`` and ``WatermarkDetector``
on the CPU, whose ``torch.randperm`` is reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ..base.errors import require
from ..base.interface import LogitsProcessor
from ..base.method import Cost, Documentation, Method, Option, Place, Vectors
from ..base.ranking import best, descending
from ..base.value_types import ValueType, is_long, is_number, plain
from ..random.torch_rng import randperm
from .synthid import SynthID, SynthIDTextWatermarkingConfig

Array = np.ndarray
TABLE_SIZE = 1_000_003
CANDIDATES = 40  # how many of the best tokens "selfhash" looks at


@dataclass(frozen=True)
class WatermarkingConfig:
    """The watermark's settings, with transformers' names; a detector must know all of them.

    "lefthash" seeds with the newest id (Algorithm 2); "selfhash" with the last `context_width` ids and the candidate
    itself (Algorithm 3), for the 40 best candidates.
    """

    greenlist_ratio: float = 0.25
    bias: float = 2.0
    hashing_key: int = 15485863
    seeding_scheme: Literal["lefthash", "selfhash"] = "lefthash"
    context_width: int = 1

    def __post_init__(self) -> None:
        for name in ("greenlist_ratio", "bias"):
            require(is_number(getattr(self, name)), f"{name} must be a number", getattr(self, name))
        for name in ("hashing_key", "context_width"):
            require(is_long(getattr(self, name)), f"{name} must be a whole number of 64 bits", getattr(self, name))
        require(0 < self.greenlist_ratio < 1, "greenlist_ratio must be in (0, 1)", self.greenlist_ratio)
        require(math.isfinite(self.bias), "bias must be finite", self.bias)
        schemes = ("lefthash", "selfhash")
        require(self.seeding_scheme in schemes, "seeding_scheme must be 'lefthash' or 'selfhash'", self.seeding_scheme)
        require(self.context_width >= 1, "context_width must be at least 1", self.context_width)

    def seed(self, ids: Array) -> int:
        """Return the generator's seed after (n,) ids; in "selfhash" the last of them is the candidate."""
        if self.seeding_scheme == "lefthash":
            return self.hashing_key * int(ids[-1]) % (2**64 - 1)
        table, ids = fixed_table(self.hashing_key), ids[-self.context_width :]
        a, b = table[ids % TABLE_SIZE] + 1, table[ids[-1:] % TABLE_SIZE] + 1
        return int((np.array([self.hashing_key]) * a * b).min()) % (2**64 - 1)

    def green(self, ids: Array, vocabulary: int) -> Array:
        """The green tokens after (n,) ids: int(vocabulary · greenlist_ratio) of them, in the permutation's order."""
        return permuted(self.seed(ids), vocabulary, int(vocabulary * self.greenlist_ratio))


Watermarking = WatermarkingConfig | SynthIDTextWatermarkingConfig

WATERMARKING = Option(
    "watermarking_config",
    ValueType(
        "watermarking",
        "Watermarking | Mapping[str, Any]",
        "a configuration or a mapping",
        lambda value: isinstance(value, (Watermarking, Mapping)),
    ),
    converted=lambda settings: configured(settings),
    group="Watermark",
    help='Settings of a green-list watermark, or {}; with "keys" and "ngram_len", those of SynthID.',
    flag="--watermark",
    metavar="JSON",
)


def configured(settings: Any) -> Watermarking:
    """Return a watermark's settings, as they are or built from a mapping; one that holds ``keys`` is SynthID's."""
    if isinstance(settings, Watermarking):
        return settings
    WATERMARKING.check(settings)
    kind = SynthIDTextWatermarkingConfig if "keys" in settings else WatermarkingConfig
    known = list(kind.__dataclass_fields__)
    for name in settings:
        require(name in known, f"watermarking_config may hold {', '.join(known)}", name)
    if kind is SynthIDTextWatermarkingConfig:
        require("ngram_len" in settings, "watermarking_config must hold ngram_len beside keys", dict(settings))
    try:
        return kind(**{name: plain(value) for name, value in settings.items()})
    except ValueError as error:
        raise ValueError(f"watermarking_config: {error}") from None


@lru_cache(maxsize=2)
def fixed_table(hashing_key: int) -> Array:
    """Return the permutation that "selfhash" hashes ids with."""
    return randperm(hashing_key, TABLE_SIZE)


@lru_cache(maxsize=512)
def permuted(seed: int, n: int, first: int) -> Array:
    """The start of a permutation; kept, since texts come back to the same ids."""
    return randperm(seed, n, first)


@dataclass(frozen=True)
class Watermark:
    """Adds a bias to green tokens; nothing changes while the text is shorter than the seeding context."""

    config: WatermarkingConfig

    def __call__(self, ids: Sequence[Array], scores: Array) -> Array:
        out, bias = scores.copy(), scores.dtype.type(self.config.bias)
        for row, text in zip(out, ids, strict=True):
            if len(text) >= self.config.context_width:
                row[self.chosen(np.asarray(text), row)] += bias
        return out

    def chosen(self, text: Array, row: Array) -> Array:
        """Return the tokens of one row that get the bias."""
        V = len(row)
        if self.config.seeding_scheme == "lefthash":
            return self.config.green(text, V)
        likeliest = np.flatnonzero(best(row, CANDIDATES))
        likeliest = likeliest[descending(row[likeliest])]
        return np.array(
            [token for token in likeliest.tolist() if token in self.config.green(np.append(text, token), V)], np.int64
        )


@dataclass(frozen=True)
class Detection:
    """The result of a detector: how many ids were green, and how unlikely that is by chance: z-score, p-value,
    verdict.
    """

    num_tokens_scored: int
    num_green_tokens: int
    green_fraction: float
    z_score: float
    p_value: float
    prediction: bool
    confidence: float


@dataclass(frozen=True)
class WatermarkDetector:
    """Detects whether a text carries a watermark, given its settings and the vocabulary's size.

    A leading `bos_token_id` is passed over. ``ignore_repeated_ngrams`` counts each context with its next id once.
    """

    config: WatermarkingConfig
    vocabulary: int
    bos_token_id: int | None = None
    ignore_repeated_ngrams: bool = False

    def __call__(self, ids: Sequence[int], z_threshold: float = 3.0) -> Detection:
        """The verdict on (n,) ids, best without their prompt; ``ValueError`` where they are too few."""
        text = np.asarray(ids, np.int64)
        text = text[1:] if len(text) and text[0] == self.bos_token_id else text
        width, selfhash = self.config.context_width, self.config.seeding_scheme == "selfhash"
        require(len(text) > width, f"a watermark needs more than context_width ({width}) ids to be seen", len(text))
        grams = [tuple(gram) for gram in np.lib.stride_tricks.sliding_window_view(text, width + 1 - selfhash).tolist()]
        if self.ignore_repeated_ngrams:
            grams = list(dict.fromkeys(grams))
        green = sum(self.is_green(gram) for gram in grams)

        ratio, total = self.config.greenlist_ratio, len(grams)
        z = (green - ratio * total) / math.sqrt(total * ratio * (1 - ratio))
        p = 0.5 * math.erfc(z / math.sqrt(2))
        return Detection(total, green, green / total, z, p, z > z_threshold, 1 - p)

    def is_green(self, gram: tuple[int, ...]) -> bool:
        """Tell whether the last id of a gram is green after the ids before it."""
        seeding = gram if self.config.seeding_scheme == "selfhash" else gram[:-1]
        return gram[-1] in self.config.green(np.array(seeding), self.vocabulary)


def make(place: Place, watermarking_config: Any) -> LogitsProcessor:
    """Build the green-list watermark, or SynthID's."""
    config = configured(watermarking_config)
    if isinstance(config, SynthIDTextWatermarkingConfig):
        return SynthID(config, place.prompt_length)
    return Watermark(config)


METHODS = (
    Method(
        "watermarking_config",
        options=(WATERMARKING,),
        make=make,
        last=True,
        documentation=(
            Documentation(
                "watermarking_config",
                what="A hash of the last id marks a quarter of all tokens as green. These get a bias, which a detector "
                "can find later.",
                formula=r"z_i \leftarrow z_i + \delta\,[i \in G(x_{t-1})]",
                source="Kirchenbauer et al. 2023",
                when="To recognise one's own text later (`decoders.processors.watermark.WatermarkDetector`).",
                example={"watermarking_config": {"bias": 3.0}},
            ),
            Documentation(
                "watermarking_config (SynthID)",
                what="The bits of a keyed hash decide a tournament among the candidates.",
                formula=r"p_i \leftarrow p_i\,(1 + g_i - \textstyle\sum_j g_j p_j)",
                source="Dathathri et al. 2024",
                when="As the watermark above; on average the distribution doesn't change.",
                example={"watermarking_config": {"ngram_len": 5, "keys": [3, 11, 27, 41]}},
                random=True,
            ),
        ),
        costs=(
            Cost(
                {"watermarking_config": {}},
                reason="a fresh permutation of the vocabulary for every new seeding id; ids seen before are kept",
            ),
            Cost(
                {"watermarking_config": {"seeding_scheme": "selfhash"}},
                title="watermarking_config (selfhash)",
                reason="the scheme needs a permutation of the vocabulary for each of 40 candidates",
            ),
            Cost(
                {"watermarking_config": {"ngram_len": 5, "keys": list(range(1, 31))}},
                title="watermarking_config (SynthID)",
                reason="30 keys hashed and 30 rounds played for each of 50,257 tokens; "
                "after a truncation only for what is left",
            ),
        ),
        vectors=(
            Vectors(
                "watermark",
                lambda *settings: Watermark(WatermarkingConfig(*settings)),
                (
                    [0.25, 2.0, 15485863, "lefthash", 1],
                    [0.5, 2.0, 15485863, "lefthash", 1],
                    [0.5, 1.5, 7, "selfhash", 3],
                ),
            ),
            Vectors(
                "synthid",
                lambda prompt_length, *settings: SynthID(SynthIDTextWatermarkingConfig(*settings), prompt_length),
                ([2, 3, [11, 5, 23]], [2, 2, [11, 5, 23]]),
            ),
        ),
    ),
)

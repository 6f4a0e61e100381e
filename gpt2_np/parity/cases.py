"""The cases that the conformance vectors ask: which processors, with which arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from decoders import llama_cpp as L
from decoders import mlx_lm as M
from decoders import processors as P
from decoders import warpers as W
from decoders.constraint import Constraint
from decoders.guidance import Guidance
from decoders.mirostat import Mirostat, MirostatV1, MirostatV2
from decoders.repetition import DRY, RecentPenalty
from decoders.synthid import SynthID, SynthIDTextWatermarkingConfig
from decoders.watermark import Watermark, WatermarkingConfig

Array = np.ndarray

# Scores with ties, with −inf, and plain; null is −inf.
ROWS: list[list[float | None]] = [
    [2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0],
    [1.0, 1.0, 1.0, 0.0, 0.0, -1.0, None, None],
    [0.0, None, 3.0, None, -1.0, 2.5, None, 2.5],
    [-3.0, -0.1, -7.0, -0.1, -2.0, -9.0, -1.0, -4.0],
]
IDS = [1, 5, 1, 3, 5, 1]


class Given:
    """A stepper that answers the same scores whatever it is fed: what follows a negative prompt, given as data."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.array([scores], np.float32)

    def feed(self, ids: Any) -> Array:
        return self.scores

    def reorder(self, rows: Any) -> None:
        pass


class Steps:
    """Mirostat at the end of a text: `earlier` rows of scores are what it saw before each of the newest ids."""

    def __init__(self, kind: type[Mirostat], earlier: list[list[float]], tau: float, eta: float) -> None:
        self.kind, self.earlier, self.tau, self.eta = kind, earlier, tau, eta

    def __call__(self, ids: Any, scores: Array) -> Array:
        start = len(ids[0]) - len(self.earlier)
        mirostat = self.kind(start, self.tau, self.eta)
        for place, row in enumerate(self.earlier):
            mirostat([ids[0][: start + place]], np.array([row], np.float32))
        return mirostat(ids, scores)


class Answer:
    """An automaton that answers the same whatever was written."""

    def __init__(self, tokens: tuple[int, ...], complete: bool, vocabulary: int) -> None:
        self.mask, self.complete = np.isin(np.arange(vocabulary), tokens), complete

    def following(self, new: Any) -> tuple[Array, bool]:
        return self.mask, self.complete


def allowed(lists: tuple[list[Any], ...]) -> Callable[[int, Array], list[int]]:
    """What may follow, by a text's last id."""
    by_last = dict(lists)
    return lambda prompt, text: by_last[int(text[-1])]


BUILD: dict[str, Callable[..., Any]] = {
    "temperature": W.Temperature,
    "top_k": W.TopK,
    "top_p": W.TopP,
    "min_p": W.MinP,
    "typical_p": W.Typical,
    "epsilon_cutoff": W.EpsilonCutoff,
    "eta_cutoff": W.EtaCutoff,
    "top_h": W.TopH,
    "renormalize": W.Renormalize,
    "repetition_penalty": P.RepetitionPenalty,
    "no_repeat_ngram_size": P.NoRepeatNgram,
    "suppress_tokens": P.Suppress,
    "begin_suppress_tokens": P.SuppressAtBegin,
    "min_length": P.MinLength,
    "min_new_tokens": lambda prompt_length, new, eos: P.MinLength(prompt_length + new, eos),
    "forced_bos": P.ForcedBOS,
    "forced_eos": P.ForcedEOS,
    "occurrence_penalty": P.OccurrencePenalty,
    "exponential_decay_length_penalty": P.ExponentialDecayLengthPenalty,
    "remove_invalid_values": P.RemoveInvalid,
    "bad_words_ids": P.bad_words,
    "sequence_bias": lambda pairs: P.SequenceBias({tuple(s): b for s, b in pairs}),
    "diversity_penalty": P.HammingDiversity,
    "prefix_allowed_tokens": lambda lists: P.PrefixAllowedTokens(allowed(lists)),
    "constraint": lambda tokens, complete, eos: Constraint(Answer(tokens, complete, len(ROWS[0])), 0, eos),
    "guidance_scale": lambda scale, unguided: Guidance(scale, Given(unguided), 1, [0]),
    "recent_penalty": RecentPenalty,
    "dry": lambda multiplier, base, allowed_length, last_n, breakers: DRY(
        multiplier, base, allowed_length, last_n, tuple(map(tuple, breakers))
    ),
    "llama.cpp top_k": L.TopK,
    "llama.cpp top_p": L.TopP,
    "llama.cpp min_p": L.MinP,
    "llama.cpp typical_p": L.Typical,
    "llama.cpp top_n_sigma": L.TopNSigma,
    "llama.cpp dynamic_temperature": L.DynamicTemperature,
    "llama.cpp xtc": lambda p, threshold, coin, *keep: L.XTC(p, threshold, lambda: coin, *keep),
    "mlx-lm top_p": M.TopP,
    "mlx-lm xtc": lambda p, threshold, coin: M.XTC(p, threshold, lambda: coin),
    "mirostat_1": lambda tau, eta, earlier: Steps(MirostatV1, list(earlier), tau, eta),
    "mirostat_2": lambda tau, eta, earlier: Steps(MirostatV2, list(earlier), tau, eta),
    "watermark": lambda *settings: Watermark(WatermarkingConfig(*settings)),
    "synthid": lambda prompt_length, *settings: SynthID(SynthIDTextWatermarkingConfig(*settings), prompt_length),
}

FLAT = [0.5, 0.0, 0.5, 1.0, -1.0, 0.0, 0.25, -0.5]
CASES: list[tuple[str, list[Any]]] = [
    ("temperature", [0.7]),
    ("temperature", [2.0]),
    ("top_k", [1]),
    ("top_k", [2]),
    ("top_k", [1, 3]),
    ("top_k", [99]),
    ("top_p", [0.1]),
    ("top_p", [0.6]),
    ("top_p", [0.95]),
    ("top_p", [0.1, 3]),
    ("min_p", [0.3]),
    ("min_p", [0.9, 2]),
    ("typical_p", [0.2]),
    ("typical_p", [0.8]),
    ("typical_p", [0.2, 3]),
    ("epsilon_cutoff", [0.1]),
    ("epsilon_cutoff", [0.9, 2]),
    ("eta_cutoff", [0.2]),
    ("eta_cutoff", [0.9, 3]),
    ("top_h", [0.4]),
    ("top_h", [0.8]),
    ("renormalize", []),
    ("repetition_penalty", [1.5]),
    ("repetition_penalty", [0.8]),
    ("no_repeat_ngram_size", [1]),
    ("no_repeat_ngram_size", [2]),
    ("no_repeat_ngram_size", [3]),
    ("suppress_tokens", [[0, 3]]),
    ("begin_suppress_tokens", [[0, 3], 6]),
    ("begin_suppress_tokens", [[0, 3], 5]),
    ("min_length", [9, [2]]),
    ("min_length", [6, [2]]),
    ("min_new_tokens", [4, 3, [2]]),
    ("min_new_tokens", [4, 2, [2, 0]]),
    ("forced_bos", [4]),
    ("forced_eos", [7, [2, 4]]),
    ("occurrence_penalty", [2, 0.5, 0.25]),
    ("exponential_decay_length_penalty", [4, 1.5, [0, 2]]),
    ("exponential_decay_length_penalty", [6, 1.5, [0, 2]]),
    ("remove_invalid_values", []),
    ("bad_words_ids", [[[0], [1, 4], [2]], [2]]),
    ("sequence_bias", [[[[0], 1.5], [[5, 1, 3], -2.0]]]),
    ("diversity_penalty", [0.75, [2, 0, 2]]),
    ("prefix_allowed_tokens", [[[5, [0]], [1, [2, 6, 7]]]]),
    ("constraint", [[0, 2, 5], False, [3]]),
    ("constraint", [[0, 2, 3], True, [3, 4]]),
    ("guidance_scale", [1.5, FLAT]),
    ("guidance_scale", [0.5, FLAT]),
    ("recent_penalty", [3, 1.5, 0.0, 0.0]),
    ("recent_penalty", [4, 1.0, 0.5, 0.25]),
    ("recent_penalty", [99, 0.8, 0, 1]),
    ("dry", [0.8, 1.75, 1, None, []]),
    ("dry", [0.8, 1.75, 2, None, []]),
    ("dry", [0.8, 2.0, 1, 4, []]),
    ("dry", [0.8, 1.75, 1, None, [[3]]]),
    ("dry", [0.8, 1.75, 0, None, [[3, 5]]]),
    ("llama.cpp top_k", [2]),
    ("llama.cpp top_k", [4]),
    ("llama.cpp top_p", [0.1]),
    ("llama.cpp top_p", [0.6]),
    ("llama.cpp top_p", [0.1, 3]),
    ("llama.cpp min_p", [0.3]),
    ("llama.cpp min_p", [0.9, 2]),
    ("llama.cpp typical_p", [0.2]),
    ("llama.cpp typical_p", [0.8]),
    ("llama.cpp typical_p", [0.2, 3]),
    ("llama.cpp top_n_sigma", [0.5]),
    ("llama.cpp top_n_sigma", [1.0]),
    ("llama.cpp dynamic_temperature", [1.0, 0.5]),
    ("llama.cpp dynamic_temperature", [0.5, 0.5, 2.0]),
    ("llama.cpp xtc", [0.5, 0.1, 0.25]),
    ("llama.cpp xtc", [0.5, 0.1, 0.75]),
    ("llama.cpp xtc", [1.0, 0.05, 0.0, 4]),
    ("mlx-lm top_p", [0.1]),
    ("mlx-lm top_p", [0.6]),
    ("mlx-lm xtc", [0.5, 0.1, 0.25]),
    ("mlx-lm xtc", [0.5, 0.1, 0.75]),
    ("mirostat_1", [2.0, 0.1, []]),
    ("mirostat_1", [2.0, 0.5, [FLAT, FLAT]]),
    ("mirostat_2", [1.0, 0.1, []]),
    ("mirostat_2", [2.0, 0.5, [FLAT, FLAT]]),
    ("watermark", [0.25, 2.0, 15485863, "lefthash", 1]),
    ("watermark", [0.5, 2.0, 15485863, "lefthash", 1]),
    ("watermark", [0.5, 1.5, 7, "selfhash", 3]),
    ("synthid", [2, 3, [11, 5, 23]]),
    ("synthid", [2, 2, [11, 5, 23]]),
]
# min_tokens_to_keep as beam sampling sets it, max(2, 1 + the number of end-of-texts), for each that takes one.
KEEPING: list[tuple[str, list[Any]]] = [
    ("top_k", [1]),
    ("top_p", [0.1]),
    ("min_p", [1.0]),
    ("typical_p", [0.1]),
    ("epsilon_cutoff", [0.9]),
    ("eta_cutoff", [0.9]),
]
CASES += [(name, [*arguments, max(2, 1 + ends)]) for name, arguments in KEEPING for ends in (1, 2, 3)]

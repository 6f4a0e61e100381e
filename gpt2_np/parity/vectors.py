"""Conformance vectors for decoders: small cases with exact answers, in plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from decoders import Options, generate
from decoders import processors as P
from decoders import warpers as W
from decoders.beam import Step, beam_search

Array = np.ndarray
V = 8
# Scores with ties, with −inf, and plain; ids so far.
ROWS: list[list[float | None]] = [
    [2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0],
    [1.0, 1.0, 1.0, 0.0, 0.0, -1.0, None, None],
    [0.0, None, 3.0, None, -1.0, 2.5, None, 2.5],
    [-3.0, -0.1, -7.0, -0.1, -2.0, -9.0, -1.0, -4.0],
]
IDS = [1, 5, 1, 3, 5, 1]

BUILD: dict[str, Callable[..., Any]] = {
    "temperature": W.Temperature, "top_k": W.TopK, "top_p": W.TopP, "min_p": W.MinP, "typical_p": W.Typical,
    "epsilon_cutoff": W.EpsilonCutoff, "eta_cutoff": W.EtaCutoff, "top_h": W.TopH, "renormalize": W.Renormalize,
    "repetition_penalty": P.RepetitionPenalty, "no_repeat_ngram_size": P.NoRepeatNgram, "suppress_tokens": P.Suppress,
    "begin_suppress_tokens": P.SuppressAtBegin, "min_length": P.MinLength, "forced_bos": P.ForcedBOS,
    "forced_eos": P.ForcedEOS, "occurrence_penalty": P.OccurrencePenalty,
    "exponential_decay_length_penalty": P.ExponentialDecayLengthPenalty, "remove_invalid_values": P.RemoveInvalid,
    "bad_words_ids": P.bad_words, "sequence_bias": lambda pairs: P.SequenceBias({tuple(s): b for s, b in pairs}),
}  # fmt: skip
CASES: list[tuple[str, list[Any]]] = [
    ("temperature", [0.7]), ("temperature", [2.0]), ("top_k", [1]), ("top_k", [2]), ("top_k", [1, 3]), ("top_k", [99]),
    ("top_p", [0.1]), ("top_p", [0.6]), ("top_p", [0.95]), ("top_p", [0.1, 3]), ("min_p", [0.3]), ("min_p", [0.9, 2]),
    ("typical_p", [0.2]), ("typical_p", [0.8]), ("typical_p", [0.2, 3]), ("epsilon_cutoff", [0.1]),
    ("epsilon_cutoff", [0.9, 2]), ("eta_cutoff", [0.2]), ("top_h", [0.4]), ("renormalize", []),
    ("repetition_penalty", [1.5]), ("repetition_penalty", [0.8]), ("no_repeat_ngram_size", [1]),
    ("no_repeat_ngram_size", [2]), ("no_repeat_ngram_size", [3]), ("suppress_tokens", [[0, 3]]),
    ("begin_suppress_tokens", [[0, 3], 6]), ("begin_suppress_tokens", [[0, 3], 5]), ("min_length", [9, [2]]),
    ("min_length", [6, [2]]), ("forced_bos", [4]), ("forced_eos", [7, [2, 4]]), ("occurrence_penalty", [2, 0.5, 0.25]),
    ("exponential_decay_length_penalty", [4, 1.5, [0, 2]]), ("remove_invalid_values", []),
    ("bad_words_ids", [[[0], [1, 4], [2]], [2]]), ("sequence_bias", [[[[0], 1.5], [[5, 1, 3], -2.0]]]),
]  # fmt: skip
BEAMS: list[tuple[str, dict[str, Any]]] = [
    ("3 beams", {"num_beams": 3}),
    ("length penalty 2", {"num_beams": 3, "length_penalty": 2.0}),
    ("length penalty 0", {"num_beams": 3, "length_penalty": 0.0}),
    ("early stopping", {"num_beams": 2, "early_stopping": True}),
    ("never early", {"num_beams": 2, "early_stopping": "never"}),
    ("repetition penalty", {"num_beams": 2, "repetition_penalty": 1.5}),
]
EOS, NEW, PROMPT = 3, 6, [0, 4]


def numbers(row: Sequence[float | None]) -> Array:
    """A row from JSON: null is −inf."""
    return np.array([-np.inf if one is None else one for one in row], np.float64)


def plain(row: Array) -> list[float | None]:
    """A row for JSON: −inf is null."""
    return [float(one) if np.isfinite(one) else None for one in row]


class Table:
    """A stepper whose logits depend on the last id alone: row i of a (V, V) table follows id i."""

    def __init__(self, table: Array) -> None:
        self.table = np.asarray(table, np.float32)

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        return self.table[[row[-1] for row in ids]]

    def reorder(self, rows: Sequence[int]) -> None:
        pass


def apply(name: str, arguments: list[Any], ids: list[int], row: Sequence[float | None]) -> list[float | None]:
    """One processor on one row of scores."""
    processor = BUILD[name](*[tuple(one) if isinstance(one, list) and name != "sequence_bias" else one
                              for one in arguments])  # fmt: skip
    return plain(processor([np.array(ids)], numbers(row).astype(np.float32)[None])[0])


def beams(table: Array, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Every hypothesis that a beam search on a table returns: ids and score, best first."""
    chosen = Options(max_new_tokens=NEW, eos_token_id=EOS, num_return_sequences=options["num_beams"], **options)
    return [{"ids": one.ids, "score": one.score} for one in generate(Table(table), [PROMPT], chosen)]


def traced(table: Array, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Each step of the search: candidates, growing beams and the pool as (ids, score), and whether it goes on."""
    steps: list[Step] = []
    chosen = Options(max_new_tokens=NEW, eos_token_id=EOS, num_return_sequences=options["num_beams"], **options)
    beam_search(Table(table), [PROMPT], chosen, trace=steps)
    return [{part: [[list(beam.ids), float(beam.score)] for beam in getattr(step, part)]
             for part in ("candidates", "running", "pool")} | {"goes_on": step.open} for step in steps]  # fmt: skip


def make() -> dict[str, Any]:
    """All vectors, with their answers."""
    table = np.round(np.random.default_rng(7).standard_normal((V, V)) * 2, 2)
    processors = [{"name": name, "arguments": arguments, "ids": IDS, "in": row, "out": apply(name, arguments, IDS, row)}
                  for name, arguments in CASES for row in ROWS]  # fmt: skip
    searches = [{"name": name, "options": options, "prompt": PROMPT, "eos_token_id": EOS, "max_new_tokens": NEW,
                 "out": beams(table, options), "trace": traced(table, options)} for name, options in BEAMS]  # fmt: skip
    return {"processors": processors, "table": table.tolist(), "beams": searches}


def answer(cases: dict[str, Any]) -> dict[str, Any]:
    """Our answers to the vectors' questions."""
    return {
        "decoders": [apply(case["name"], case["arguments"], case["ids"], case["in"]) for case in cases["processors"]],
        "beams": [beams(np.array(cases["table"]), case["options"]) for case in cases["beams"]],
    }

"""Conformance vectors for decoders: small cases with exact answers, in plain JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from decoders import Options, generate
from decoders.searches.beam_common import Step

from ..display import Readable
from ..system.files import JSONObject
from .cases import BUILD, CASES, IDS, ROWS

Array = np.ndarray
V = 8
BEAMS: list[tuple[str, JSONObject]] = [
    ("3 beams", {"num_beams": 3}),
    ("length penalty 2", {"num_beams": 3, "length_penalty": 2.0}),
    ("length penalty 0", {"num_beams": 3, "length_penalty": 0.0}),
    ("early stopping", {"num_beams": 2, "early_stopping": True}),
    ("never early", {"num_beams": 2, "early_stopping": "never"}),
    ("repetition penalty", {"num_beams": 2, "repetition_penalty": 1.5}),
]
EOS, NEW, PROMPT = 3, 6, [0, 4]
LOWEST = float(np.finfo(np.float32).min)  # what SynthID and remove_invalid_values write in place of −inf


def numbers(row: Sequence[float | None]) -> Array:
    """A row from JSON: null is −inf."""
    return np.array([-np.inf if one is None else one for one in row], np.float64)


def plain(row: Array) -> list[float | None]:
    """A float32 row for JSON, in as few digits as tell its numbers apart: −inf is null."""
    return [float(str(one)) if np.isfinite(one) else None for one in row]


class Table(Readable):
    """A stepper whose logits depend on the last id alone: row i of a (V, V) table follows id i."""

    def __init__(self, table: Array) -> None:
        self.table = np.asarray(table, np.float32)

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        return self.table[[row[-1] for row in ids]]

    def reorder(self, rows: Sequence[int]) -> None:
        pass


def apply(name: str, arguments: list[Any], ids: list[int], row: Sequence[float | None]) -> list[float | None]:
    """One processor on one row of scores."""
    processor = BUILD[name](*[tuple(one) if isinstance(one, list) else one for one in arguments])
    return plain(processor([np.array(ids)], numbers(row).astype(np.float32)[None])[0])


def beams(table: Array, options: JSONObject) -> list[JSONObject]:
    """Every hypothesis that a beam search on a table returns: ids and score, best first."""
    chosen = Options(max_new_tokens=NEW, eos_token_id=EOS, num_return_sequences=options["num_beams"], **options)
    return [{"ids": one.ids, "score": one.score} for one in generate(Table(table), [PROMPT], chosen)]


def traced(table: Array, options: JSONObject) -> list[JSONObject]:
    """Each step of the search: candidates, growing beams and the pool as (ids, score), and whether it goes on."""
    steps: list[Step] = []
    chosen = Options(max_new_tokens=NEW, eos_token_id=EOS, num_return_sequences=options["num_beams"], **options)
    generate(Table(table), [PROMPT], chosen, trace=steps)
    return [
        {
            part: [[list(beam.ids), float(beam.score)] for beam in getattr(step, part)]
            for part in ("candidates", "running", "pool")
        }
        | {"goes_on": step.open}
        for step in steps
    ]


def make() -> JSONObject:
    """All vectors, with their answers."""
    table = np.round(np.random.default_rng(7).standard_normal((V, V)) * 2, 2)
    processors = []
    for name, arguments in CASES:
        for row in ROWS:
            out = apply(name, arguments, IDS, row)
            kept = [token for token, score in enumerate(out) if score is not None and score > LOWEST]
            processors.append({"name": name, "arguments": arguments, "ids": IDS, "in": row, "kept": kept, "out": out})
    searches = [
        {
            "name": name,
            "options": options,
            "prompt": PROMPT,
            "eos_token_id": EOS,
            "max_new_tokens": NEW,
            "out": beams(table, options),
            "trace": traced(table, options),
        }
        for name, options in BEAMS
    ]
    return {"processors": processors, "table": table.tolist(), "beams": searches}


def written(vectors: JSONObject) -> str:
    """The vectors as JSON, each case on a line of its own."""
    parts = [f'"table": {json.dumps(vectors["table"])}']
    for name in ("processors", "beams"):
        parts.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, vectors[name])) + "\n]")
    return "{" + ",\n".join(parts) + "}\n"


def answer(cases: JSONObject) -> JSONObject:
    """Our answers to the vectors' questions."""
    return {
        "decoders": [apply(case["name"], case["arguments"], case["ids"], case["in"]) for case in cases["processors"]],
        "beams": [beams(np.array(cases["table"]), case["options"]) for case in cases["beams"]],
    }

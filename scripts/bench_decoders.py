"""Measure what each processor, sampler and trace costs for one token with GPT-2's vocabulary.

    python scripts/bench_decoders.py [--write] [--calls 60]

The methods' and profiles' own statements list the cases, and say why some of them take long
(`decoders.base.method.Cost`). The input is one row of 50,257 logits and a text of 500 ids. There are two kinds of
logits: realistic ones, and nearly flat ones, where truncation has the most to sort. The script prints a Markdown table
of medians; ``--write`` puts it between the markers in docs/decoding/cost.md.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decoders import methods
from decoders.base.interface import log_softmax
from decoders.generate import chain, stream
from decoders.options import Options

V, LENGTH = 50_257, 500
PAGE = Path(__file__).parent.parent / "docs" / "decoding" / "cost.md"
MARKERS = ("<!-- costs -->", "<!-- end of costs -->")
LIMIT = 1.0  # milliseconds; what is above needs a reason

EOS = 50_256


class Case(NamedTuple):
    """A row of the table: one processor with some options or, if none is named, a whole step of decoding."""

    name: str
    settings: Mapping[str, Any]
    reason: str
    processor: str = ""


class Row(NamedTuple):
    """Milliseconds a token: on realistic logits, and on nearly flat ones; and why that is much."""

    name: str
    realistic: float
    flat: float
    reason: str


def processors() -> list[Case]:
    """Every case of one processor: the methods' own, then other engines' variants."""
    found = [
        Case(cost.title or method.name, cost.settings, cost.reason, method.name)
        for method in methods.every()
        if method.make is not None
        for cost in method.costs
    ]
    for profile in map(methods.profile, methods.PROFILES):
        for cost in profile.costs:
            (name,) = profile.makes.keys() & cost.settings.keys()
            found.append(Case(cost.title, cost.settings, cost.reason, name))
    return found


def steps() -> list[Case]:
    """Every case of a whole step: all processors, the draw, and the log-probability of what was drawn."""
    return [
        Case(f"whole step: {cost.title}", cost.settings, cost.reason)
        for method in methods.every()
        if method.run is not None
        for cost in method.costs
    ]


def missing() -> list[str]:
    """Return what acts on scores and has no case: methods, and other engines' variants of them."""
    lacking = [method.name for method in methods.every() if method.make is not None and not method.costs]
    profiles = [methods.profile(name) for name in methods.PROFILES]
    shown = {
        profile.makes[name]
        for profile in profiles
        for cost in profile.costs
        for name in cost.settings.keys() & profile.makes.keys()
    }
    lacking += [
        f"{name} ({profile.name})" for profile in profiles for name, make in profile.makes.items() if make not in shown
    ]
    return lacking


class Random:
    """A stepper without a model, so that guidance costs what it adds itself."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def feed(self, ids: Any) -> np.ndarray:
        return np.repeat(self.logits, len(ids), axis=0)

    def reorder(self, rows: Any) -> None:
        pass


def realistic(random: np.random.Generator) -> np.ndarray:
    """(1, V) logits with the shape of a language model's: a wide normal body with a tail of likely tokens above it.

    The entropy is 4 nats, the nucleus of 95 % some hundred tokens.
    """
    logits = random.standard_normal(V) * 1.8 - 100
    logits[random.choice(V, 400, replace=False)] = np.sort(random.exponential(2.0, 400)) - 94
    return logits.astype(np.float32)[None]


def flat(random: np.random.Generator) -> np.ndarray:
    """(1, V) logits that hardly differ."""
    return (random.standard_normal(V) * 0.5 - 100).astype(np.float32)[None]


def median(call: Callable[[int], object], calls: int) -> float:
    """The median milliseconds of ``call(0)``, ``call(1)``, …, the first few left out."""
    times = []
    for number in range(calls + 3):
        start = time.perf_counter()
        call(number)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def processor(case: Case, logits: np.ndarray, text: np.ndarray, calls: int) -> float:
    """Measure one processor, on a text that grows by an id at each call."""
    settings = case.settings
    asked = {"do_sample": "num_beams" not in settings, "eos_token_id": EOS, "max_new_tokens": 400, **settings}
    if "guidance_scale" in settings:
        asked["unconditional"] = lambda: Random(logits)
    if "constraint" in settings:
        asked["constraint"], text = automaton(settings["constraint"]), np.maximum(text, 256)  # words, which it allows
    options = Options(**asked)
    named = chain(options, 0, LENGTH, LENGTH + options.max_new_tokens, text[:2].tolist())
    (chosen,) = [one.processor for one in named if one.option == case.processor]
    return median(lambda number: chosen([text[: LENGTH + number]], logits), calls)


def automaton(pattern: str) -> Any:
    """A regular expression over every byte and as many random words as there are ids."""
    import tokenizers

    from gpt2_np.text.byte_level_bpe import BYTE_OF_LETTER
    from gpt2_np.text.constraints import Automaton, Vocabulary
    from gpt2_np.text.tokenizer import Tokenizer

    random, letter = np.random.default_rng(0), {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
    words = dict.fromkeys(bytes([byte]) for byte in range(256))
    while len(words) < V:
        words[bytes(random.integers(97, 123, random.integers(2, 9)).tolist())] = None
    table = {"".join(letter[byte] for byte in word): number for number, word in enumerate(words)}
    vocabulary = Vocabulary(Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(table, []))), V)
    return Automaton(vocabulary, "regex", pattern)


def whole(settings: Mapping[str, Any], logits: np.ndarray, text: np.ndarray, calls: int) -> float:
    """Measure everything but the model for one token."""
    options = Options(seed=1 if settings.get("do_sample") else None, max_new_tokens=calls + 10, **settings)
    tokens = stream(Random(logits), [text[:LENGTH].tolist()], options)
    return median(lambda number: next(tokens), calls)


def log_softmax_again(logits: np.ndarray, number: int) -> np.ndarray:
    """The same log-probabilities at each call."""
    return log_softmax(logits)


def rows(calls: int) -> Iterator[Row]:
    """Everything that is measured."""
    random = np.random.default_rng(0)
    kinds, text = (realistic(random), flat(random)), random.integers(0, V, LENGTH + calls + 10)
    for case in processors():
        first, second = (processor(case, logits, text, calls) for logits in kinds)
        yield Row(case.name, first, second, case.reason)
    first, second = (median(partial(log_softmax_again, x), calls) for x in kinds)
    yield Row("log-probabilities", first, second, "")
    for case in steps():
        first, second = (whole(case.settings, logits, text, calls) for logits in kinds)
        yield Row(case.name, first, second, case.reason)


def table(measured: list[Row]) -> str:
    """The rows as Markdown, with the reason of what is above the limit."""
    lines = ["| what | realistic logits, ms | nearly flat, ms | why more than 1 ms |", "|---|---|---|---|"]
    for name, *times, reason in measured:
        why = (reason or "**none**") if max(times) > LIMIT else ""
        lines.append(f"| {name} | {times[0]:.2f} | {times[1]:.2f} | {why} |")
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return "\n".join([*lines, "", f"One core of an {cpu}, NumPy {np.__version__}, Python {platform.python_version()}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60, help="calls of each, whose median counts")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    text = table(list(rows(options.calls)))
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(MARKERS[0])
        after = rest.split(MARKERS[1])[1]
        PAGE.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What each processor, sampler and trace of decoding costs for one token at GPT-2's vocabulary.

    python scripts/bench_decoders.py [--write] [--calls 60]

One row, 50,257 logits, a text of 500 ids. Two kinds of logits: realistic ones, and nearly flat ones, where truncation
has the most to sort. Prints a Markdown table of medians; ``--write`` puts it between the markers in
docs/decoding/cost.md.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decoders import pipeline
from decoders.interface import log_softmax
from decoders.options import Options
from decoders.profiles import LAST, RULES, WARPERS

V, LENGTH = 50_257, 500
PAGE = Path(__file__).parent.parent / "docs" / "decoding" / "cost.md"
MARKERS = ("<!-- costs -->", "<!-- end of costs -->")
LIMIT = 1.0  # milliseconds; what is above needs a reason

EOS = 50_256
WORDS = [[i, i + 1] for i in range(100, 150)]
SYNTHID = {"ngram_len": 5, "keys": list(range(1, 31))}
# Each case by the option that it shows, with what it needs beside do_sample.
CASES: dict[str, dict[str, Any]] = {
    "guidance_scale": {"guidance_scale": 1.5},
    "sequence_bias": {"sequence_bias": {tuple(word): -2.0 for word in WORDS}},
    "logit_bias": {"logit_bias": dict.fromkeys(range(100, 150), -2.0)},
    "diversity_penalty": {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 1.0},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "dry_multiplier": {"dry_multiplier": 0.8, "dry_sequence_breakers": [[13], [198], [25], [1]]},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "bad_words_ids": {"bad_words_ids": WORDS},
    "min_length": {"min_length": 700},
    "min_new_tokens": {"min_new_tokens": 300},
    "prefix_allowed_tokens_fn": {"prefix_allowed_tokens_fn": lambda number, ids: range(1000)},
    "forced_bos_token_id": {"forced_bos_token_id": 5},
    "forced_eos_token_id": {"forced_eos_token_id": EOS},
    "remove_invalid_values": {"remove_invalid_values": True},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (0, 1.01)},
    "suppress_tokens": {"suppress_tokens": list(range(100))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(100))},
    "constraint": {"constraint": r"[a-z]+( [a-z]+)*\."},
    "temperature": {"temperature": 0.8},
    "temperature (dynamic)": {"temperature": 0.8, "dynatemp_range": 0.5},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_h": {"top_h": 0.4},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.95},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.9},
    "epsilon_cutoff": {"epsilon_cutoff": 3e-4},
    "eta_cutoff": {"eta_cutoff": 3e-4},
    "xtc_probability": {"xtc_probability": 1.0, "seed": 1},
    "mirostat": {"mirostat": 2},
    "mirostat (version 1)": {"mirostat": 1},
    "watermarking_config": {"watermarking_config": {}},
    "watermarking_config (selfhash)": {"watermarking_config": {"seeding_scheme": "selfhash"}},
    "watermarking_config (SynthID)": {"watermarking_config": SYNTHID},
    "renormalize_logits": {"renormalize_logits": True},
}
PROFILES: dict[str, dict[str, Any]] = {
    f"{option} ({profile})": {option: value, "profile": profile}
    for profile, options in {
        "llama.cpp": {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9},
        "mlx-lm": {"top_p": 0.95, "xtc_probability": 1.0},
    }.items()
    for option, value in options.items()
}
# Whole steps: every processor, the draw, and the log-probability of what was drawn.
WHOLE: dict[str, dict[str, Any]] = {
    "greedy": {},
    "do_sample": {"do_sample": True},
    "do_sample, rng cuda": {"do_sample": True, "rng": "cuda"},
    "temperature 0.8, top-k 50, top-p 0.95": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "the same, rng cuda": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95, "rng": "cuda"},
    "profile llama.cpp": {"do_sample": True, "profile": "llama.cpp"},
    "the same, 10 alternatives listed": {"do_sample": True, "profile": "llama.cpp", "top_logprobs": 10},
}
SORTING = "where the distribution is nearly flat, all 50,257 must be sorted"
STREAM = "torch's CPU stream takes 100,514 draws a token from its Mersenne Twister"
REASONS = {
    "top_p": SORTING,
    "top_p (llama.cpp)": SORTING,
    "top_p (mlx-lm)": SORTING,
    "typical_p (llama.cpp)": SORTING,
    "typical_p": "entropy and distance of every token; " + SORTING,
    "min_p": "nearly flat: half of all tokens are copied one by one",
    "eta_cutoff": "nearly flat: half of all tokens are copied one by one",
    "do_sample": STREAM,
    "profile llama.cpp": STREAM,
    "the same, 10 alternatives listed": STREAM,
    "temperature 0.8, top-k 50, top-p 0.95": STREAM,
    "watermarking_config": "a fresh permutation of the vocabulary for every new seeding id; ids seen before are kept",
    "watermarking_config (selfhash)": "the scheme needs a permutation of the vocabulary for each of 40 candidates",
    "watermarking_config (SynthID)": "30 keys hashed and 30 rounds played for each of 50,257 tokens; "
    "after a truncation only for what is left",
    "do_sample, rng cuda": "Philox's ten rounds for each of 50,257 tokens, which a GPU computes side by side",
}


class Cost(NamedTuple):
    """Milliseconds a token: on realistic logits, and on nearly flat ones."""

    name: str
    realistic: float
    flat: float


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


def processor(settings: dict[str, Any], option: str, logits: np.ndarray, text: np.ndarray, calls: int) -> float:
    """What one processor costs, the text growing by an id at each call."""
    asked = {"do_sample": "num_beams" not in settings, "eos_token_id": EOS, "max_new_tokens": 400} | settings
    if "guidance_scale" in settings:
        asked["unconditional"] = lambda: Random(logits)
    if "constraint" in settings:
        asked["constraint"], text = automaton(settings["constraint"]), np.maximum(text, 256)  # words, which it allows
    options = Options(**asked)
    chain = pipeline.build(options, 0, LENGTH, LENGTH + options.max_new_tokens, text[:2].tolist())
    (chosen,) = [one.processor for one in chain if one.option == option]
    return median(lambda number: chosen([text[: LENGTH + number]], logits), calls)


def automaton(pattern: str) -> Any:
    """A regular expression over every byte and as many random words as there are ids."""
    import tokenizers

    from gpt2_np.constraints import Automaton, Vocabulary
    from gpt2_np.tokenizer import BYTE_OF_LETTER, Tokenizer

    random, letter = np.random.default_rng(0), {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
    words = dict.fromkeys(bytes([byte]) for byte in range(256))
    while len(words) < V:
        words[bytes(random.integers(97, 123, random.integers(2, 9)).tolist())] = None
    table = {"".join(letter[byte] for byte in word): number for number, word in enumerate(words)}
    vocabulary = Vocabulary(Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(table, []))), V)
    return Automaton(vocabulary, "regex", pattern)


def whole(settings: dict[str, Any], logits: np.ndarray, text: np.ndarray, calls: int) -> float:
    """What everything but the model costs for one token."""
    from decoders.generate import stream

    options = Options(seed=1 if settings.get("do_sample") else None, max_new_tokens=calls + 10, **settings)
    tokens = stream(Random(logits), [text[:LENGTH].tolist()], options)
    return median(lambda number: next(tokens), calls)


def costs(calls: int) -> Iterator[Cost]:
    """Everything that is measured."""
    random = np.random.default_rng(0)
    kinds, text = (realistic(random), flat(random)), random.integers(0, V, LENGTH + calls + 10)
    for name, settings in (CASES | PROFILES).items():
        option = name.split(" (")[0]
        yield Cost(name, *(processor(settings, option, logits, text, calls) for logits in kinds))
    yield Cost("log-probabilities", *(median(lambda number, x=x: log_softmax(x), calls) for x in kinds))
    for name, settings in WHOLE.items():
        yield Cost(f"whole step: {name}", *(whole(settings, logits, text, calls) for logits in kinds))


def table(rows: list[Cost]) -> str:
    """The rows as Markdown, with the reason of what is above the limit."""
    lines = ["| what | realistic logits, ms | nearly flat, ms | why more than 1 ms |", "|---|---|---|---|"]
    for name, *times in rows:
        reason = REASONS.get(name.removeprefix("whole step: "), "**none**") if max(times) > LIMIT else ""
        lines.append(f"| {name} | {times[0]:.2f} | {times[1]:.2f} | {reason} |")
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return "\n".join([*lines, "", f"One core of an {cpu}, NumPy {np.__version__}, Python {platform.python_version()}."])


def missing() -> list[str]:
    """Options that act on scores and that no case shows."""
    shown = {name.split(" (")[0] for name in CASES}
    return [name for name in (*RULES, *WARPERS, *LAST) if name not in shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60, help="calls of each, whose median counts")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    text = table(list(costs(options.calls)))
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(MARKERS[0])
        after = rest.split(MARKERS[1])[1]
        PAGE.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The measurements: one function for each group of rows; each row compares engines that took turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decoders import Options
from decoders.generate import chain
from decoders.processors.pipeline import apply
from decoders.random.draws import from_stream, seeded
from gpt2_np import GPT2
from gpt2_np.model.choices import REDUCED
from gpt2_np.model.params import flatten

from .machine import median
from .turns import Process, medians


@dataclass
class Row:
    """One row of the table: our figure, the others', and what it amounts to. ``ratios`` are ours over theirs."""

    work: str
    value: float
    unit: str
    others: dict[str, float] = field(default_factory=dict)
    gbs: float | None = None
    share: float | None = None
    note: str = ""

    def ratio(self, other: str) -> float:
        """Return the ratio of ours to the other's, so that above 1 ours is better."""
        return self.others[other] / self.value if self.unit in ("s", "ms", "MB") else self.value / self.others[other]

    def plain(self) -> dict[str, Any]:
        """The row as JSON can hold it."""
        return asdict(self)


def together(
    folder: Path, engines: Sequence[tuple[str, str]], rounds: int, work: str, **question: Any
) -> dict[str, float]:
    """Median seconds of the engines that are installed, by "name precision"."""
    with ExitStack() as stack:
        processes = []
        for engine, precision in engines:
            process = start(engine, precision, folder)
            if process is not None:
                processes.append(stack.enter_context(process))
        return medians(processes, rounds, work, **question)


def start(engine: str, precision: str, folder: Path) -> Process | None:
    """The engine, or None (and a word on stderr) where it isn't installed."""
    try:
        return Process(engine, precision, folder)
    except RuntimeError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def bytes_read(model: GPT2, position: float) -> float:
    """Bytes that a step of decoding reads there: weights, but for embeddings that are looked up, keys and values."""
    looked_up = ("wte.weight", "wpe.weight", "lm_head.weight")
    blocks = sum(array.nbytes for key, array in flatten(model.params) if key not in looked_up)
    return blocks + model.params.lm_head.nbytes + 2 * 4 * model.config.n_layer * model.config.n_embd * position


PRECISIONS = ("float32", *REDUCED)
SCORED = ("float32", "int8")  # those of the batches and of scoring
PEERS = {
    "float32": [("torch", ""), ("llama.cpp", "f32"), ("ctranslate2", "float32")],
    "bfloat16": [("llama.cpp", "f16")],
    "int8": [("llama.cpp", "q8_0"), ("ctranslate2", "int8")],
    "int4": [("llama.cpp", "q4_0")],
}


def decoding(size: str, folder: Path, rounds: int, tokens: int) -> list[Row]:
    """Greedy decoding at every precision beside the engines that have it too, whose turns come right after."""
    engines = [engine for dtype in PRECISIONS for engine in (("gpt2_np", dtype), *PEERS[dtype])]
    seconds = together(folder, engines, rounds, "decode", position=64, tokens=tokens)
    rows = []
    for dtype in PRECISIONS:
        names = [f"{engine} {precision}".rstrip() for engine, precision in PEERS[dtype]]
        others = {name: tokens / seconds[name] for name in names if name in seconds}
        rows.append(Row(f"{size}: greedy decoding, {dtype}", tokens / seconds[f"gpt2_np {dtype}"], "tokens/s", others))
    return rows


def side_by_side(size: str, folder: Path, rounds: int, tokens: int, precisions: Sequence[str]) -> list[Row]:
    """Greedy decoding at several precisions, and far into the context, each token in turn with reading memory."""
    positions = [64, 900]
    with Process("side by side", " ".join(precisions), folder) as process:
        answers = [process.ask("decode", positions=positions, tokens=tokens) for _ in range(rounds)]
    taken = {name: float(np.median([answer[name] for answer in answers])) for name in answers[0]}
    memory = 1 / taken["a gigabyte"]
    rows = [Row(f"{size}: memory, read by all cores", memory, "GB/s")]
    for dtype in precisions:
        early, late = (taken[f"{dtype} at {position}"] for position in positions)
        gbs = bytes_read(GPT2.from_pretrained(folder, dtype=dtype), positions[0] + tokens / 2) / early / 1e9
        note = "" if dtype == "float32" else f"{taken['float32 at 64'] / early:.2f} × our float32; "
        note += f"at position 900: {early / late:.2f} × this rate"
        rows.append(Row(f"{size}: token by token, {dtype}", 1 / early, "tokens/s", {}, gbs, gbs / memory, note))
    return rows


def prefill(size: str, folder: Path, rounds: int, tokens: int = 512, *, alone: bool = False) -> list[Row]:
    """A whole prompt at once, in every precision, in turns; float32's share of what the matrix products alone take.

    `alone` leaves the others out.
    """
    others = [("torch", ""), ("llama.cpp", "f32"), ("llama.cpp", "q8_0"), ("ctranslate2", "float32")]
    others.append(("ctranslate2", "int8"))
    ours = [("gpt2_np", precision) for precision in PRECISIONS]
    engines = [("bound", ""), *ours, *([] if alone else others)]
    seconds = together(folder, engines, rounds, "prefill", tokens=tokens)
    bound = seconds.pop("bound")
    mine = {precision: seconds.pop(f"gpt2_np {precision}") for precision in PRECISIONS}
    rates = {name: tokens / one for name, one in seconds.items()}
    rows = []
    for precision, one in mine.items():
        exact = precision == "float32"
        rows.append(
            Row(
                f"{size}: a prompt of {tokens} tokens, {precision}",
                tokens / one,
                "tokens/s",
                {name: rate for name, rate in rates.items() if reduced(name) == (precision in ("int8", "int4"))},
                share=bound / one if exact else None,
                note="share: of the matrix products alone" if exact else f"{mine['float32'] / one:.2f} × our float32",
            )
        )
    return rows


def reduced(name: str) -> bool:
    """Tell whether an engine's precision is one of whole numbers."""
    return name.endswith(("int8", "q8_0"))


def scoring(size: str, folder: Path, rounds: int, tokens: int = 3072) -> list[Row]:
    """A text scored in windows of all positions, in float32 and int8, in turns."""
    engines = [("gpt2_np", "float32"), ("gpt2_np", "int8"), ("torch", "")]
    seconds = together(folder, engines, rounds, "score", tokens=tokens)
    mine = {precision: seconds.pop(f"gpt2_np {precision}") for precision in SCORED}
    theirs = {name: tokens / one for name, one in seconds.items()}
    return [
        Row(
            f"{size}: scoring {tokens} tokens, {precision}",
            tokens / one,
            "tokens/s",
            theirs,
            note="" if precision == "float32" else f"{mine['float32'] / one:.2f} × our float32",
        )
        for precision, one in mine.items()
    ]


def batches(size: str, folder: Path, rounds: int) -> list[Row]:
    """Many prompts at once, in float32 and int8, and five beams, the prompts' own time included."""
    rows = []
    asked: tuple[tuple[str, int, dict[str, Any]], ...] = (
        (
            "16 prompts of 64 at once, 64 tokens each",
            16 * 64,
            {"work": "many", "rows": 16, "position": 64, "tokens": 64},
        ),
        (
            "64 prompts of 32 at once, 16 tokens each",
            64 * 16,
            {"work": "many", "rows": 64, "position": 32, "tokens": 16},
        ),
        ("5 beams × 64 tokens", 64, {"work": "beams", "beams": 5, "position": 64, "tokens": 64}),
    )
    for work, tokens, question in asked:
        engines = [("gpt2_np", precision) for precision in SCORED]
        engines += [("torch", ""), ("ctranslate2", "float32"), ("ctranslate2", "int8")]
        seconds = together(folder, engines, rounds, **question)
        mine = {precision: seconds.pop(f"gpt2_np {precision}") for precision in SCORED}
        for precision, one in mine.items():
            theirs = {n: tokens / other for n, other in seconds.items() if reduced(n) == (precision == "int8")}
            note = "" if precision == "float32" else f"{mine['float32'] / one:.2f} × our float32"
            rows.append(Row(f"{size}: {work}, {precision}", tokens / one, "tokens/s", theirs, note=note))
    return rows


def sampled_token() -> Row:
    """Measure what processors and the draw cost for one token with a vocabulary of 50,257."""
    options = Options(do_sample=True, temperature=0.8, top_k=50, top_p=0.95)
    processors, choose = chain(options, 0, 1, 100), from_stream(seeded(0))
    logits, ids = np.random.default_rng(0).standard_normal((1, 50257), np.float32) * 3, [np.array([1])]
    cost = median(lambda: choose(apply(processors, ids, logits), [0], 1), 200)
    return Row(
        "sampling a token: temperature, top-k 50, top-p 0.95, torch's draw",
        1e3 * cost,
        "ms",
        note="vocabulary of 50,257",
    )


# Without SciPy, as where only the package is installed: Numba would load it, for products that nothing here needs.
BARE = "import os, sys; sys.modules['scipy'] = None; "
# A process ends here and now: the time is that to the first token, not to the end of Python.
END = "; os._exit(0)"
FIRST = (
    BARE + "from gpt2_np import GPT2; model = GPT2.from_pretrained(sys.argv[1]);"
    "model.generate([1, 2, 3], max_new_tokens=1)" + END
)


def first_token(size: str, folder: Path) -> Row:
    """From starting Python to the first token: files, bytecode and compiled kernels being on a warm disk."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def seconds(code: str) -> float:
        command = [sys.executable, "-c", code, str(folder)]
        return median(lambda: subprocess.run(command, check=True, env=environment), 15)

    python = seconds(BARE + "import numpy" + END)
    return Row(f"{size}: process start to first token", seconds(FIRST), "s", note=f"importing NumPy: {python:.2f} s")


def first_compilation(size: str, folder: Path) -> Row:
    """The same on a new machine, where the forward pass must be compiled."""

    def compiled_anew() -> object:
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | {"NUMBA_CACHE_DIR": empty}
            return subprocess.run([sys.executable, "-c", FIRST, str(folder)], check=True, env=environment)

    return Row(f"{size}: first start on a new machine, to the first token", median(compiled_anew, 3), "s")


def peak_memory(size: str, folder: Path) -> list[Row]:
    """MB at the peak of a process that loads the model, reads 512 tokens and writes up to position 1,000."""
    theirs = high_water(
        "import torch; from transformers import GPT2LMHeadModel; torch.set_num_threads(2);"
        "m = GPT2LMHeadModel.from_pretrained(sys.argv[1], attn_implementation='eager').eval();"
        "m.generate(torch.arange(512)[None], max_new_tokens=488, eos_token_id=None, pad_token_id=0, do_sample=False)",
        folder,
    )
    rows = []
    for dtype in ("float32", "int8"):
        mine = high_water(
            f"from gpt2_np import GPT2; m = GPT2.from_pretrained(sys.argv[1], dtype='{dtype}');"
            "m.generate(list(range(512)), max_new_tokens=488, eos_token_id=())",
            folder,
        )
        rows.append(
            Row(
                f"{size}: peak memory, 1,000 positions, {dtype}",
                mine,
                "MB",
                {"torch": theirs},
                note=f"{mine / theirs:.2f} × transformers'",
            )
        )
    return rows


def high_water(code: str, folder: Path) -> float:
    """MB that a Python process held at its peak, as the kernel counts them."""
    peak = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0]"
    code = f"import sys; {code}; print({peak})"
    out = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True, stderr=subprocess.DEVNULL)
    return int(out.split()[-1]) / 1e3


def bundled(rounds: int) -> list[Row]:
    """The bundled model: what a newcomer meets."""
    folder = GPT2.from_pretrained().folder
    assert folder is not None
    seconds = together(folder, [("gpt2_np", "float32"), ("torch", "")], rounds, "decode", position=64, tokens=200)
    mine = seconds.pop("gpt2_np float32")
    load = median(lambda: GPT2.from_pretrained(), 7)
    return [
        Row("tales (bundled): greedy decoding", 200 / mine, "tokens/s", {n: 200 / s for n, s in seconds.items()}),
        Row("tales (bundled): loading", load, "s"),
        first_token("tales (bundled)", folder),
    ]


def quality(text: str) -> list[Row]:
    """Perplexity of the bundled model at every precision on the same text."""
    exact = GPT2.from_pretrained().score(text).perplexity
    rows = [Row("tales: perplexity a token, float32", exact, "")]
    for dtype in REDUCED:
        value = GPT2.from_pretrained(dtype=dtype).score(text).perplexity
        rows.append(Row(f"tales: perplexity a token, {dtype}", value, "", note=f"{value / exact - 1:+.2%}"))
    return rows


def curves(folder: Path, rounds: int = 5) -> dict[str, list[tuple[int, float]]]:
    """ms a step against position and against rows, and ms a prompt against its length: medians, points in turn."""
    points: dict[tuple[str, int], tuple[int, dict[str, Any]]] = (
        {
            ("position", p): (100, {"work": "decode", "position": p, "tokens": 10})
            for p in (16, 64, 128, 256, 512, 768, 1000)
        }
        | {
            ("rows", r): (250, {"work": "decode", "position": 64, "tokens": 4, "rows": r})
            for r in (1, 2, 4, 8, 16, 32, 64)
        }
        | {("prompt", n): (1000, {"work": "prefill", "tokens": n}) for n in (64, 128, 256, 512, 1024)}
    )
    taken: dict[tuple[str, int], list[float]] = {point: [] for point in points}
    with Process("gpt2_np", "float32", folder) as ours:
        for _ in range(rounds):
            for point, (per_step, question) in points.items():
                taken[point].append(per_step * ours.ask(**question))
    return {
        axis: [(at, float(np.median(ms))) for (of, at), ms in taken.items() if of == axis]
        for axis in ("position", "rows", "prompt")
    }

"""Measure how fast `HarnessModel` and lm-evaluation-harness's own ``hf`` class answer the harness's requests.

    python scripts/bench_evaluation.py                          the bundled model
    python scripts/bench_evaluation.py --model FOLDER --share 0.2 --batch-size 8

Both run on the CPU in float32, each in a process of its own, and take turns, kind of request by kind; medians of the
rounds are reported, and whether both gave the same answers. ``hf`` runs with the best of the given batch sizes. On a
machine that is busy with something else, compare what each costs the processor, on one thread (OMP_NUM_THREADS=1 and
--processor). Needs what ``.ci/evaluate`` installs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.turns import PAUSE

SCORED, TEXTS, WRITTEN = "loglikelihood", "loglikelihood_rolling", "generate_until"
GREEDY = {"until": ["\n\n"], "max_gen_toks": 32, "do_sample": False}


def requests(share: float, context: int) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """Each kind of request by its name: the harness's name for it, and so many requests."""
    from harness_tasks import choices, text

    draw = random.Random(0)

    def some(count: int) -> int:
        return max(2, round(share * count))

    several = [choices(draw, number) for number in range(some(80))]
    shots = "\n\n".join(text(draw, 3) for _ in range(max(1, min(4, context // 128))))
    words = [text(draw, draw.randint(3, 6)).rstrip(".").rsplit(" ", 1) for _ in range(some(160))]
    long_words = [text(draw, context // 24).rstrip(".").rsplit(" ", 1) for _ in range(some(24))]
    return {
        "multiple choice": (SCORED, [(one["context"], choice) for one in several for choice in one["choices"]]),
        "multiple choice behind examples": (
            SCORED,
            [(f"{shots}\n\n{one['context']}", choice) for one in several[: some(40)] for choice in one["choices"]],
        ),
        "last word of a paragraph": (SCORED, [(before, f" {word}") for before, word in words]),
        "last word of a page": (SCORED, [(before, f" {word}") for before, word in long_words]),
        "rolling, short texts": (TEXTS, [(text(draw, draw.randint(1, 6)),) for _ in range(some(80))]),
        "rolling, long texts": (TEXTS, [(text(draw, context // 6),) for _ in range(some(10))]),
        "generation": (WRITTEN, [(text(draw, draw.randint(1, 6)) + " The", dict(GREEDY)) for _ in range(some(48))]),
    }


def work(engine: str, model: str, share: float, batch_size: str) -> None:
    """Answer questions, a kind a line, with seconds and answers."""
    import warnings

    warnings.simplefilter("ignore")
    from lm_eval.api.instance import Instance

    from gpt2_np.evaluation import HarnessModel

    folder = folder_of(model)
    if engine == "hf":
        from lm_eval.models.huggingface import HFLM

        judged: Any = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=int(batch_size))
    else:
        judged = HarnessModel(folder)
    kinds = requests(share, judged.max_length)
    print(json.dumps(list(kinds)), flush=True)
    for line in sys.stdin:
        kind, asked = kinds[json.loads(line)]
        instances = [Instance(kind, {}, one, 0, ("bench", 0, 1)) for one in asked]
        begun = time.perf_counter(), time.process_time()
        answers = getattr(judged, kind)(instances, disable_tqdm=True)
        ended = time.perf_counter(), time.process_time()
        print(json.dumps([[end - start for start, end in zip(begun, ended, strict=True)], answers]), flush=True)


def folder_of(model: str) -> Path:
    """Return where a model's files are."""
    from gpt2_np.weights.hub import locate

    return locate(model)


class Engine:
    """One of the two in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.kinds: list[str] = self._answer()

    def ask(self, kind: str) -> tuple[list[float], list[Any]]:
        """Seconds that passed, seconds of the processor, and answers."""
        time.sleep(PAUSE)  # thread pools wait for more work by spinning
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(kind) + "\n")
        self.process.stdin.flush()
        seconds, answers = self._answer()
        return seconds, answers

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {' '.join(self.process.args)} stopped")  # type: ignore[arg-type]
        return json.loads(line)


def far(ours: list[Any], theirs: list[Any]) -> float:
    """The largest distance of log-probabilities, less what float32's sums of hundreds of tokens may make; infinite
    where anything discrete differs."""
    largest = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(other, str):
            largest = max(largest, 0.0 if mine == other else float("inf"))
            continue
        value, right = (mine[0], other[0]) if isinstance(other, list) else (mine, other)
        if isinstance(other, list) and mine[1] != other[1]:
            return float("inf")
        largest = max(largest, max(0.0, abs(value - right) - 1e-6 * abs(right)))
    return largest


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tales", help="a name or folder, with a tokenizer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the requests, for larger models")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 32], help="of hf")
    parser.add_argument("--only", nargs="+", help="kinds, by what their names begin with")
    parser.add_argument("--processor", action="store_true", help="compare the processor's seconds, of all threads")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        engine, model, share, batch_size = options.work
        work(engine, model, float(share), batch_size)
        return
    arguments = options.model, str(options.share)
    ours = Engine("ours", *arguments, "1")
    theirs = {size: Engine("hf", *arguments, str(size)) for size in options.batch_size}
    print(f"{'':36}{'ours, s':>9}{'hf, s':>9}{'faster':>8}{'far':>9}   hf by batch size")
    for kind in ours.kinds:
        if options.only and not kind.startswith(tuple(options.only)):
            continue
        taken: dict[int, list[float]] = {size: [] for size in (0, *theirs)}
        largest = 0.0
        for round_ in range(options.rounds + 1):
            answers = {}
            for size, engine in ((0, ours), *theirs.items()):
                seconds, answers[size] = engine.ask(kind)
                if round_:
                    taken[size].append(seconds[options.processor])
            largest = max(far(answers[0], answers[size]) for size in theirs)
        middle = {size: statistics.median(some) for size, some in taken.items()}
        best = min(middle[size] for size in theirs)
        sizes = ", ".join(f"{size}: {middle[size]:.2f}" for size in theirs)
        print(f"{kind:36}{middle[0]:9.2f}{best:9.2f}{best / middle[0]:7.2f}×{largest:9.1e}   {sizes}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    main()

"""The cost of training beside torch: a function for each group of rows, as in `measure`; the engines are `trainers`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .measure import Row, start
from .turns import Process

Engine = tuple[str, str]
OURS: Engine = ("gpt2_np training", "")
TORCH: tuple[Engine, ...] = (("torch training", "eager"), ("torch training", "sdpa"))
SMALL = (8, 64)  # rows and tokens of a step of the small models
A_TURN = 200_000  # ids of the vocabulary in all steps of a turn, about: a step of the smallest takes milliseconds
Taken = dict[str, tuple[float, float]]  # by engine: the median seconds, and processor seconds


def rows(size: str, folder: Path, small_ones: dict[int, Path], rounds: int) -> list[Row]:
    """All rows of one shape, and of small models, by the size of their vocabulary."""
    return [
        *steps(size, folder, rounds),
        *large_steps(size, folder, max(1, rounds // 3)),
        update(size, folder, rounds),
        gradients(size, folder, rounds),
        *[from_scratch(vocabulary, small, rounds) for vocabulary, small in small_ones.items()],
    ]


def steps(size: str, folder: Path, rounds: int) -> list[Row]:
    """Steps of 4 × 64 tokens."""
    seconds = in_turns(folder, [OURS, *TORCH], rounds, "step", rows=4, tokens=64)[0]
    return [row(f"{size}: a training step, 4 × 64 tokens", seconds)]


def large_steps(size: str, folder: Path, rounds: int) -> list[Row]:
    """Steps of 8 × 256 tokens, in fresh processes, since the peak of memory is that of all a process ever did."""
    less = (OURS[0], "layers")
    seconds, peaks = in_turns(folder, [OURS, less, *TORCH], rounds, "step", rows=8, tokens=256)
    mine = peaks.pop(name(OURS))
    saving, saved = seconds.pop(name(less)), peaks.pop(name(less))
    beside = {engine: peak for engine, peak in peaks.items() if engine in seconds}
    least = min(beside.values(), default=float("nan"))
    note = f"{mine / least:.2f} × the smaller of torch's; keep=layers: {saved:,.0f} MB and {saving[0]:.2f} s"
    return [
        row(f"{size}: a training step, 8 × 256 tokens", seconds),
        Row(f"{size}: peak memory of training, 8 × 256 tokens", mine, "MB", beside, note=note),
    ]


def update(size: str, folder: Path, rounds: int) -> Row:
    """AdamW alone: 28 bytes a parameter are read or written, the gradient once, all else twice."""
    seconds = in_turns(folder, [OURS, TORCH[0]], 2 * rounds, "update")[0]
    return row(f"{size}: AdamW alone, buffers donated", seconds)


def gradients(size: str, folder: Path, rounds: int) -> Row:
    """Every name's gradient beside every name's value, one row of 512; torch captures nothing."""
    with ExitStack() as stack:
        processes = started(stack, folder, [OURS, TORCH[0]])
        turns: dict[str, list[list[float]]] = {}
        for _ in range(rounds + 1):
            for process in processes:
                for work in ("capture", "gradients") if process.name == name(OURS) else ("gradients",):
                    turns.setdefault(f"{process.name} {work}", []).append(process.ask(work, rows=1, tokens=512))
    seconds = middle(turns)
    capture = seconds.pop(f"{name(OURS)} capture")
    seconds = {one.removesuffix(" gradients"): taken for one, taken in seconds.items()}
    mine = seconds[name(OURS)]
    whole = row(f"{size}: gradients of every name, 512 tokens", seconds)
    whole.note = (
        f"{mine[0] / capture[0]:.2f} × capturing alone ({capture[0]:.2f} s); torch captures nothing; {whole.note}"
    )
    return whole


def from_scratch(vocabulary: int, folder: Path, rounds: int) -> Row:
    """A model of 2 layers, 128 wide, with so many ids: tokens a second."""
    (batch, tokens), count = SMALL, max(10, A_TURN // vocabulary)
    question = {"rows": batch, "tokens": tokens, "steps": count}
    seconds = in_turns(folder, [OURS, *TORCH], rounds, "step", **question)[0]
    per_second = {engine: batch * tokens * count / taken[0] for engine, taken in seconds.items()}
    note = row("", seconds).note
    work = f"2 layers, 128 wide, {vocabulary:,} ids: training, steps of {batch} × {tokens} tokens"
    return Row(work, per_second.pop(name(OURS)), "tokens/s", per_second, note=note)


# ---- turns ----------------------------------------------------------------------------------------------------------


def name(engine: Engine) -> str:
    """Return the name of this engine's process."""
    return " ".join(engine).rstrip()


def started(stack: ExitStack, folder: Path, engines: Sequence[Engine]) -> list[Process]:
    """The engines that are installed."""
    found = [start(engine, precision, folder) for engine, precision in engines]
    return [stack.enter_context(process) for process in found if process is not None]


def in_turns(
    folder: Path, engines: Sequence[Engine], rounds: int, work: str, **question: Any
) -> tuple[Taken, dict[str, float]]:
    """Each engine's medians over some rounds, behind one that isn't counted, and the peak of its memory (MB)."""
    with ExitStack() as stack:
        processes = started(stack, folder, engines)
        turns: dict[str, list[list[float]]] = {process.name: [] for process in processes}
        for _ in range(rounds + 1):
            for process in processes:
                turns[process.name].append(process.ask(work, **question))
        return middle(turns), {process.name: process.ask("peak") for process in processes}


def middle(turns: dict[str, list[list[float]]]) -> Taken:
    """Medians of all turns but the first."""
    return {
        engine: (statistics.median(one[0] for one in some[1:]), statistics.median(one[1] for one in some[1:]))
        for engine, some in turns.items()
    }


def row(work: str, seconds: Taken) -> Row:
    """Seconds beside the others', and in the note the processors' time, which other programs move less."""
    others = {engine: taken[0] for engine, taken in seconds.items() if engine != name(OURS)}
    mine = seconds[name(OURS)]
    ratios = ", ".join(f"{seconds[engine][1] / mine[1]:.2f}" for engine in others)
    return Row(work, mine[0], "s", others, note=f"processor time: {mine[1]:.2f} s (**{ratios} ×**)")

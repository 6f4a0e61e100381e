"""Many prompts at once: read, batched, answered in their own order, and resumable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoders.base.errors import shown

from ..text.many import MEMORY as MEMORY
from ..text.many import Job as Job
from ..text.many import Read, Work, answered, batches, generating, jobs_of, scoring
from ..text.many import fields as fields
from .lines import Line, count, read_lines
from .progress import bar
from .results import Appended, Printed, Record, results

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2

WINDOW = 256  # prompts that are looked at together, so that batches are of similar lengths


def generate_many(gpt2: GPT2, source: Path | Iterable[Line], options: Mapping[str, Any], output: Path | None) -> bool:
    """Continue every prompt of a file and write the results; whether all of them could be.

    What a line may hold, and which prompts share a batch, is said by `text.many.generating`.
    """
    return run(source, *generating(gpt2, options), output, lambda line: line.fields.get("prompt"))


def score_many(gpt2: GPT2, source: Path | Iterable[Line], options: Mapping[str, Any], output: Path | None) -> bool:
    """Score every text of a file and write the results; whether all of them could be.

    What a line may hold is said by `text.many.scoring`.
    """
    return run(source, *scoring(gpt2, options), output, lambda line: None)


def run(
    source: Path | Iterable[Line], read: Read, work: Work, output: Path | None, prompt_of: Callable[[Line], Any]
) -> bool:
    """Answer lines, some at a time, each in its place; whether none of them failed, now or in an earlier run.

    ``ValueError`` where the output holds the result of another prompt.
    """
    sound = True
    total = count(source) if isinstance(source, Path) else None
    lines = iter(read_lines(source) if isinstance(source, Path) else source)
    with results(output) as out, bar(total, "prompt") as progress:
        while some := list(itertools.islice(lines, WINDOW)):
            new = [line for line in some if line.index not in out.done]
            for line in some:
                if line.index in out.done:
                    check_same(line, out.done[line.index], prompt_of(line), output)
            sound = sound and not any("error" in out.done.get(line.index, {}) for line in some)
            progress.update(len(some) - len(new))
            sound = answer(new, read, work, out, progress.update) and sound
    return sound


def answer(
    lines: Sequence[Line], read: Read, work: Work, out: Printed | Appended, progress: Callable[[int], object]
) -> bool:
    """Answer lines in batches and write each result once all before it are written; whether none failed."""
    jobs, refused = jobs_of(lines, read)
    ready: dict[int, Sequence[Record]] = {record["index"]: [record] for record in refused}
    waiting, sound = [line.index for line in lines], not ready

    def write() -> None:
        while waiting and waiting[0] in ready:
            out.write(ready.pop(waiting.pop(0)))
            progress(1)

    write()
    for batch in batches(jobs):
        for job, records in zip(batch, answered(batch, work), strict=True):
            ready[job.index] = records
            sound = sound and "error" not in records[0]
        write()
    return sound


def check_same(line: Line, done: Record, prompt: object, output: Path | None) -> None:
    """``ValueError`` where a result is that of another prompt than the line's."""
    if "prompt" in done and line.error is None and done["prompt"] != prompt:
        raise ValueError(
            f"{output} holds the result of another prompt at index {line.index}: {shown(done['prompt'])}, "
            f"not {shown(prompt)}; choose another --output"
        )

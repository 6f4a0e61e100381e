"""Many prompts at once: read, put into batches, answered in their own order, and resumable."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoders.base.errors import shown

from ..model.cache import position_bytes
from ..model.ids import check_prompt
from ..system.errors import in_words
from ..text.healing import wanted
from ..text.requests import from_json
from .lines import Line, count, read_lines
from .progress import bar
from .results import Appended, Printed, Record, results

if TYPE_CHECKING:
    from ..model.config import Config
    from ..text.gpt2 import GPT2
    from ..text.results import Generation

WINDOW = 256  # prompts that are looked at together, so that batches are of similar lengths
ROWS = 64  # of a batch, at most
MEMORY = 1 << 29  # bytes that the keys and values of a batch may take
REFUSED = (ValueError, OSError)


@dataclass(frozen=True)
class Job:
    """One prompt that is to be answered: `key` says which others may run beside it (None: none), `cost` its bytes.

    `healed` says that its last token may be another in the end.
    """

    index: int
    what: Any
    key: str | None = None
    cost: int = 0
    healed: bool = False


Read = Callable[[Line], Job]
Work = Callable[[Sequence[Job]], Sequence[Sequence[Record]]]


def generate_many(gpt2: GPT2, source: Path | Iterable[Line], options: Mapping[str, Any], output: Path | None) -> bool:
    """Continue every prompt of a file and write the results; whether all of them could be.

    A line's own options go before `options`. Prompts with equal options are continued in one batch, unless a seed or
    given draws make a text depend on those beside it: each is then continued by itself, and the result is that of
    ``generate`` for the prompt alone, whatever it stands among.
    """

    def read(line: Line) -> Job:
        names = dict(line.fields)
        if "prompt" not in names:
            raise ValueError('a line must have a "prompt", which is a text or ids')
        prompt = names.pop("prompt")
        ids = gpt2.prompt_ids(prompt)
        names = {**options, **from_json(names)}
        _, chosen = gpt2.options(names, len(ids))
        alone = chosen.do_sample and (chosen.seed is not None or chosen.uniforms is not None)
        copies = max(chosen.num_beams * (chosen.num_return_sequences or 1), chosen.best_of or 1)
        positions = min(len(ids) + chosen.most(len(ids)), gpt2.config.n_positions)
        return Job(
            line.index,
            (prompt, ids, names),
            None if alone else key_of(names),
            cost(gpt2.config, positions, copies),
            wanted(dict(names), gpt2.generation_config),
        )

    def work(jobs: Sequence[Job]) -> list[list[Record]]:
        written: Any = gpt2.generate([job.what[1] for job in jobs], **jobs[0].what[2])
        each = len(written) // len(jobs)
        return [generated(job, written[at * each : (at + 1) * each]) for at, job in enumerate(jobs)]

    return run(source, read, work, output, lambda line: line.fields.get("prompt"))


def score_many(gpt2: GPT2, source: Path | Iterable[Line], options: Mapping[str, Any], output: Path | None) -> bool:
    """Score every text of a file and write the results; whether all of them could be.

    A JSONL line holds a "text", and may hold the "prompt" before it and a "stride"; or a "prompt" alone, which is then
    what is scored.
    """

    def read(line: Line) -> Job:
        names = {**options, **line.fields}
        unknown = names.keys() - {"text", "prompt", "stride"}
        if unknown:
            raise ValueError(f"a line may hold a text, a prompt and a stride, got {', '.join(sorted(unknown))}")
        text = names.pop("text") if "text" in names else line.fields.get("prompt")
        if "text" not in line.fields:
            names["prompt"] = options.get("prompt")
        if text is None:
            raise ValueError('a line must have a "text", which is a text or ids')
        check_prompt(text, 'a "text"')
        before, stride = names.get("prompt"), names.get("stride")
        length = len(text) if stride is None else 0
        return Job(line.index, (text, before, stride), "short" if length > 0 else None, length)

    def work(jobs: Sequence[Job]) -> list[list[Record]]:
        if len(jobs) == 1:
            text, before, stride = jobs[0].what
            found = [gpt2.score(text, prompt=before, stride=stride)]
        else:
            found = gpt2.score_all([(job.what[1], job.what[0]) for job in jobs])
        fields = ("nll", "tokens", "bytes", "bits_per_byte", "perplexity")
        return [
            [{"index": job.index} | {name: getattr(one, name) for name in fields}]
            for job, one in zip(jobs, found, strict=True)
        ]

    return run(source, read, work, output, lambda line: None)


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
    ready: dict[int, Sequence[Record]] = {}
    jobs: list[Job] = []
    for line in lines:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            jobs.append(read(line))
        except REFUSED as error:
            ready[line.index] = [failure(line.index, error)]
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


def answered(batch: Sequence[Job], work: Work) -> Sequence[Sequence[Record]]:
    """The results of a batch; where it is refused, each of its jobs by itself, so that only what is wrong fails."""
    try:
        return work(batch)
    except REFUSED as error:
        if len(batch) == 1:
            return [[failure(batch[0].index, error)]]
        return [answered([job], work)[0] for job in batch]


def batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs of one key together, the costly first with their like, as many as memory allows; in the order of their
    first."""
    groups: dict[str, list[Job]] = {}
    found: list[list[Job]] = []
    for job in jobs:
        if job.key is None:
            found.append([job])
        else:
            groups.setdefault(job.key, []).append(job)
    for group in groups.values():
        ordered = sorted(group, key=lambda job: -job.cost)
        while ordered:
            size = max(1, min(ROWS, MEMORY // max(1, ordered[0].cost)))
            found.append(ordered[:size])
            ordered = ordered[size:]
    return iter(sorted(found, key=lambda batch: min(job.index for job in batch)))


def cost(config: Config, positions: int, copies: int) -> int:
    """The bytes of the keys and values of a text, in float32."""
    return position_bytes(config) * positions * copies


def key_of(names: Mapping[str, Any]) -> str:
    """What is equal for equal options."""
    return json.dumps(names, sort_keys=True, default=repr)


def generated(job: Job, written: Sequence[Generation]) -> list[Record]:
    """The lines of one prompt: one, or as many as it has sequences."""
    records = []
    for number, one in enumerate(written):
        record: Record = {"index": job.index} | fields(job.what[0], one)
        if job.healed:
            record["healed"] = one.prompt
        if len(written) > 1:
            record |= {"sequence": number, "sequences": len(written)}
        records.append(record)
    return records


def fields(prompt: object, one: Generation) -> Record:
    """What a text that was written is as JSON."""
    record: Record = {
        "prompt": prompt,
        "text": one.text,
        "ids": one.ids,
        "logprobs": one.logprobs,
        "finish_reason": one.finish_reason,
    }
    if one.score is not None:
        record["score"] = one.score
    if one.assistance is not None:
        record["assistance"] = asdict(one.assistance)
    return record


def failure(index: int, error: Exception) -> Record:
    """The line of a prompt that can't be answered."""
    return {"index": index, "error": " ".join(in_words(error).split())}


def check_same(line: Line, done: Record, prompt: object, output: Path | None) -> None:
    """``ValueError`` where a result is that of another prompt than the line's."""
    if "prompt" in done and line.error is None and done["prompt"] != prompt:
        raise ValueError(
            f"{output} holds the result of another prompt at index {line.index}: {shown(done['prompt'])}, "
            f"not {shown(prompt)}; choose another --output"
        )

"""Many texts at once: jobs that are read from lines, batched with their like, and answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..model.cache import position_bytes
from ..model.ids import check_prompt
from ..system.errors import in_words
from .healing import wanted
from .lines import Line
from .requests import from_json

if TYPE_CHECKING:
    from ..model.config import Config
    from .gpt2 import GPT2
    from .results import Generation

ROWS = 64  # of a batch, at most
MEMORY = 1 << 29  # bytes that the keys and values of a batch may take
REFUSED = (ValueError, OSError)
Record = dict[str, Any]


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


def generating(gpt2: GPT2, options: Mapping[str, Any]) -> tuple[Read, Work]:
    """Return the function that makes a line a job, and the one that continues jobs of one key: the records of each.

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

    return read, work


def scoring(gpt2: GPT2, options: Mapping[str, Any]) -> tuple[Read, Work]:
    """Return the function that makes a line a job, and the one that scores jobs: one record of each.

    A line holds a "text", and may hold the "prompt" before it and a "stride"; or a "prompt" alone, which is then what
    is scored.
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

    return read, work


def jobs_of(lines: Sequence[Line], read: Read) -> tuple[list[Job], list[Record]]:
    """Return the jobs of lines, and a record with the error for each line that makes no job."""
    jobs, refused = [], []
    for line in lines:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            jobs.append(read(line))
        except REFUSED as error:
            refused.append(failure(line.index, error))
    return jobs, refused


def answered(batch: Sequence[Job], work: Work) -> Sequence[Sequence[Record]]:
    """Return the results of a batch. A batch that is refused is halved, so that only what is wrong fails."""
    try:
        return work(batch)
    except REFUSED as error:
        if len(batch) == 1:
            return [[failure(batch[0].index, error)]]
        half = len(batch) // 2
        return [*answered(batch[:half], work), *answered(batch[half:], work)]


def batches(jobs: Sequence[Job], most: int = ROWS) -> Iterator[list[Job]]:
    """Yield batches: jobs of one key with others of like cost, at most `most` and no more than memory allows.

    Batches come in the order of their first jobs."""
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
            size = max(1, min(most, MEMORY // max(1, ordered[0].cost)))
            found.append(ordered[:size])
            ordered = ordered[size:]
    return iter(sorted(found, key=lambda batch: min(job.index for job in batch)))


def cost(config: Config, positions: int, copies: int) -> int:
    """Return the bytes of a text's keys and values, in float32."""
    return position_bytes(config) * positions * copies


def key_of(names: Mapping[str, Any]) -> str:
    """Return a key that is equal for equal options."""
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
    """Return a generated text's fields in JSON."""
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

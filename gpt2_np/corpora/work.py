"""The work on one part: its rows are read, the model works on them, and the shard is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..display import Readable
from ..engine.kernels.threads import limit
from ..internals.partial_runs import activations
from ..model.choices import BACKENDS
from ..model.ids import check_vocabulary, whole_numbers
from ..system.files import JSONObject
from ..system.threads import blas_threads, on_threads, one_blas_thread
from ..text.gpt2 import GPT2
from ..text.lines import Line
from ..text.many import REFUSED, ROWS, Read, Work, answered, batches, failure, generating, jobs_of, scoring
from . import inputs, models, shards
from .inputs import Part, Source
from .job import Identity, Job

Array = np.ndarray
Failed = list[JSONObject]


class Worker(Readable):
    """A model, loaded once, and the parts that are brought to it.

    A worker keeps nothing from one part to the next, so a part's shard depends on nothing but its rows: whoever works
    on it, and whatever was done before.
    """

    def __init__(self, job: Job, sources: Sequence[Source], out: Path, *, share: bool = False) -> None:
        self.job, self.sources, self.out = job, sources, out
        self.model = models.load(job, share=share)
        self.options = dict(job.options)
        if job.task == "generate":
            named, dtype = self.options.get("assistant_model"), self.options.pop("assistant_dtype", None)
            if named is not None:  # once, rather than for every batch
                backend = job.backend if job.backend in BACKENDS else None
                self.options["assistant_model"] = GPT2.from_pretrained(named, dtype=dtype or "float32", backend=backend)

    def __call__(self, part: Part) -> JSONObject:
        """Do a part and return its outcome. A part whose shard exists is not done again.

        ``OSError`` where a file can't be read or written, ``ValueError`` where the corpus has changed.
        """
        path = self.out / shards.name_of(self.job.task, part.number)
        if path.exists():
            return shards.about(path)
        source = self.sources[part.source]
        lines = inputs.read(source, part, self.job.columns)
        rows = [self.job.read(line, source.kind == "text") for line in lines]
        ids = {line.index: identity for identity, line in rows if identity is not None}
        names = {line.index: self.job.number(line) for _, line in rows} | ids
        lines = [line for _, line in rows]
        about: JSONObject = {"part": part.number, "first": part.first, "rows": part.rows}
        if self.job.task == "capture":
            self.capture(path, part, ids, names, lines, about)
            return about
        records, failed = self.records(lines)
        for record in records:
            record["id"] = names[record["index"]]
        about["errors"] = self.told(failed, ids, part)
        added = ("nll", "tokens", "bytes") if self.job.task == "score" else ()
        about["sums"] = {name: sum(record[name] for record in records) for name in added}
        shards.write_table(path, shards.schema(self.job.task, self.job.ids), records, about)
        return about

    def records(self, lines: Sequence[Line]) -> tuple[list[JSONObject], Failed]:
        """Return the rows' records in the rows' order, and the errors of those that failed."""
        methods: tuple[Read, Work] = (scoring if self.job.task == "score" else generating)(self.model, self.options)
        jobs, failed = jobs_of(lines, methods[0])
        done: dict[int, Sequence[JSONObject]] = {}
        most = len(jobs) if self.job.task == "score" else ROWS  # texts that are scored are put into batches once more
        for batch in batches(jobs, most):
            for job, records in zip(batch, answered(batch, methods[1]), strict=True):
                done[job.index] = records
        failed += [records[0] for records in done.values() if "error" in records[0]]
        found = [record for index in sorted(done) for record in done[index] if "error" not in record]
        if self.job.task == "generate":
            for record in found:
                record["sequence"] = record.get("sequence", 0)
                if not isinstance(record["prompt"], str):
                    record["prompt"] = self.text_of(record["prompt"])
        return found, failed

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of a prompt of ids; an empty one without a tokenizer."""
        return self.model.tokenizer.decode(list(ids)) if self.model.has_tokenizer else ""

    def told(self, failed: Failed, ids: dict[int, Identity], part: Part) -> Failed:
        """Return the rows that failed in their order, with the reasons, and with the ids of those that have one."""
        file = self.sources[part.source].path
        own = {index: {"id": identity} for index, identity in ids.items()}
        return [
            {"row": one["index"], **own.get(one["index"], {}), "file": file, "error": one["error"]}
            for one in sorted(failed, key=lambda one: one["index"])
        ]

    def capture(
        self,
        path: Path,
        part: Part,
        ids: dict[int, Identity],
        names: dict[int, Identity],
        lines: Sequence[Line],
        about: JSONObject,
    ) -> None:
        """Write the activations of a part's rows; `about` is completed.

        Every text is run by itself, with BLAS in one thread, and as many texts side by side as there are threads: so
        neither others nor the number of threads change a bit.
        """
        wanted, dtype = self.options["names"], self.options["store"]
        texts: list[tuple[int, list[int]]] = []
        failed: Failed = []
        for line in lines:
            try:
                texts += [(line.index, text) for text in self.texts_of(line)]
            except REFUSED as error:
                failed.append(failure(line.index, error))
        found: list[Any] = [None] * len(texts)

        def work(number: int) -> None:
            try:
                values = activations(self.model, np.array(texts[number][1])[None], wanted)
                found[number] = {name: np.ascontiguousarray(x[0], dtype) for name, x in values.items()}
            except REFUSED as error:
                found[number] = error

        threads = blas_threads()
        with one_blas_thread():
            on_threads(work, range(len(texts)), threads)
        broken = {texts[number][0]: one for number, one in enumerate(found) if isinstance(one, Exception)}
        failed += [failure(row, error) for row, error in broken.items()]
        arrays: dict[str, Array] = {}
        kept: list[int] = []
        for (row, text), values in zip(texts, found, strict=True):
            if row not in broken:  # a row is there as a whole or not at all
                arrays |= {f"{len(kept)}.{name}": x for name, x in ({"ids": np.array(text)} | values).items()}
                kept.append(row)
        about["errors"] = self.told(failed, ids, part)
        about["sums"] = {"texts": len(kept), "tokens": sum(len(text) for row, text in texts if row not in broken)}
        about["texts"] = [[row, names[row]] for row in kept]  # of each text: its row, and that one's id
        shards.write_arrays(path, arrays, about)

    def texts_of(self, line: Line) -> list[list[int]]:
        """Cut a row into texts of ids, each of which begins with end-of-text and has at most the length."""
        if line.error is not None:
            raise ValueError(line.error)
        text = line.fields.get("text", line.fields.get("prompt"))
        if text is None:
            raise ValueError('a line must have a "text", which is a text or ids')
        if isinstance(text, str):
            ids = self.model.tokenizer.encode(text, add_special_tokens=False)
        else:
            ids = whole_numbers(text)
            check_vocabulary(np.array(ids, object), self.model.config)
        if not ids:
            raise ValueError("there is nothing to capture: the text is empty")
        start = self.model.prompt_ids("")[:1]
        step = self.options["length"] - len(start)
        return [[*start, *ids[at : at + step]] for at in range(0, len(ids), step)]


def use_threads(cores: int) -> None:
    """Let this process use this number of threads. Called before Numba is loaded, it starts no more than those."""
    limit(cores)
    from threadpoolctl import threadpool_limits

    threadpool_limits(cores)

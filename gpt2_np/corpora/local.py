"""The local engine: one process, which takes one part after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..system.files import JSONObject
from .inputs import Part, Source
from .job import Job
from .work import Worker


def run(job: Job, sources: Sequence[Source], parts: Sequence[Part], out: Path) -> Iterator[JSONObject]:
    """Yield the outcome of each part in the parts' order."""
    worker = Worker(job, sources, out)
    for part in parts:
        yield worker(part)

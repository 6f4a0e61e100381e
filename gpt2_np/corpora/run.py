"""From files to a folder of shards: a run is planned, and an engine does the parts that are missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine import available
from ..model.choices import BACKENDS, DTYPES, FULL
from ..system.files import JSONObject, resolved
from ..text.gpt2 import GPT2
from ..text.lines import Line
from ..text.scoring import stride_of
from ..weights import hub
from . import captures, folder, inputs, local, models, on_ray, packages, shards
from .inputs import Cut, Part, Source
from .job import Job, kind_of_ids

ENGINES = ("local", "ray")
SHARD = Cut(1024, 1 << 20)  # rows of a shard, and bytes of its text: minutes of one core's work with gpt2
CHUNK = 256 << 20  # bytes of a capture's shard, about
Paths = str | Path | Sequence[str | Path]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Engine:
    """The engine that does the work: this process, or `actors` actors of `cores` cores each (by default as many as a
    Ray cluster has room for).

    ``ValueError`` for what can't be.
    """

    name: str = "local"
    actors: int | None = None
    cores: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {self.name!r}")
        for what in ("actors", "cores"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise ValueError(f"{what} must be at least 1, got {value}")
        if self.name == "local" and (self.actors, self.cores, self.address) != (None, 1, None):
            raise ValueError("actors, cores and address are for engine 'ray'; the local one is this process")
        if self.name == "ray":
            packages.ray()

    def run(self, job: Job, sources: Sequence[Source], parts: Sequence[Part], out: Path) -> Iterator[JSONObject]:
        """Yield the outcome of each part as soon as it is done."""
        if not parts:
            return iter(())
        if self.name == "local":
            return local.run(job, sources, parts, out)
        return on_ray.run(job, sources, parts, out, actors=self.actors, cores=self.cores, address=self.address)


@dataclass(frozen=True)
class Result:
    """The content of a folder after a run: the number of input `rows`, of `shards`, and of the `new` shards of this
    run.

    ``errors`` are the rows that failed, as ``_errors.jsonl`` has them; ``sums`` are of all other rows: ``nll``,
    ``tokens`` and ``bytes`` of scores, ``texts`` and ``tokens`` of captures.
    """

    folder: Path
    rows: int
    shards: int
    new: int
    errors: list[JSONObject] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> float:
        """Return, for scores, the bits per byte of the corpus; NaN if no row could be scored."""
        size = self.sums.get("bytes", 0)
        return self.sums["nll"] / math.log(2) / size if size else math.nan


def score(
    inputs: Paths,
    out: str | Path,
    *,
    model: str | Path = hub.DEFAULT,
    dtype: str = "float32",
    backend: str | None = None,
    prompt: str | None = None,
    stride: int | None = None,
    field: str = "text",
    id_field: str = "id",
    shard_rows: int = SHARD.rows,
    engine: Engine | str = "local",
    progress: Progress | None = None,
) -> Result:
    """Score every row of a corpus into a folder of Parquet with ``id, nll, tokens, bytes``.

    `inputs` are text files (a text a line), JSONL, Parquet, or folders of them. A row of the last two holds its text,
    or ids, as `field`, and may hold an id, a ``prompt`` that comes before the text and a ``stride`` (`GPT2.score`).
    Without an id a row has its number in the corpus. nll is in nats, summed over the row's tokens.

    The same call goes on with a folder that holds part of its results, whoever was killed; `progress` receives the
    number of rows that are done, and of all. ``ValueError`` or ``OSError``, in one line, before work starts: for
    options and files that can't be, and for a folder with another run's results; later, for a disk that is full or a
    file that is gone. What is in the folder then stays readable, and the same call goes on with it.
    """
    options: JSONObject = {} if prompt is None else {"prompt": prompt}
    if stride is not None:
        options["stride"] = stride

    def check(gpt2: GPT2) -> None:
        stride_of(stride, gpt2.config.n_positions)

    names = Named(str(model), dtype, backend, field, id_field)
    return run("score", inputs, Path(out), names, options, cut_of(shard_rows), as_engine(engine), progress, check)


def generate(
    inputs: Paths,
    out: str | Path,
    *,
    model: str | Path = hub.DEFAULT,
    dtype: str = "float32",
    backend: str | None = None,
    options: Mapping[str, Any] | None = None,
    field: str = "prompt",
    id_field: str = "id",
    shard_rows: int = SHARD.rows,
    engine: Engine | str = "local",
    progress: Progress | None = None,
) -> Result:
    """Continue every row of a corpus: a folder of Parquet with the fields of `Generation`, a row a sequence.

    As `score`. `options` are `GPT2.generate`'s, as JSON can say them; a row may hold options of its own, under their
    names, which go before them, and nothing else but its prompt and id.
    """
    given = dict(options or {})

    def check(gpt2: GPT2) -> None:
        gpt2.options({name: value for name, value in given.items() if not name.startswith("assistant_")}, 1)

    names = Named(str(model), dtype, backend, field, id_field)
    return run("generate", inputs, Path(out), names, given, cut_of(shard_rows), as_engine(engine), progress, check)


def capture(
    inputs: Paths,
    out: str | Path,
    names: str | Sequence[str],
    *,
    model: str | Path = hub.DEFAULT,
    dtype: str = "float32",
    length: int | None = None,
    store: str = "float32",
    field: str = "text",
    id_field: str = "id",
    shard_rows: int = SHARD.rows,
    engine: Engine | str = "local",
    progress: Progress | None = None,
) -> Result:
    """Capture named activations of every row of a corpus: a folder that `internals.capture.Captured` reads.

    As `score`. A row is cut into texts of at most `length` ids (256, or the context where that is shorter), each
    beginning with end-of-text, as ``gpt2-np internals capture`` cuts a file. A shard has about 256 MiB.
    """
    checked = Named(str(model), dtype, "numpy", field, id_field)
    options = captures.options(hub.locate(str(model)), names, length, store)
    cut = captures.cut(hub.locate(str(model)), options, cut_of(shard_rows), CHUNK)
    return run("capture", inputs, Path(out), checked, options, cut, as_engine(engine), progress, lambda gpt2: None)


@dataclass(frozen=True)
class Named:
    """The names of a run's model and of its rows' fields. ``ValueError`` for a dtype or a backend that can't be."""

    model: str
    dtype: str
    backend: str | None
    field: str
    id_field: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.backend is not None and self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if not self.field or not self.id_field or self.field == self.id_field:
            raise ValueError(f"the fields of text and id must be two names, got {self.field!r} and {self.id_field!r}")


def cut_of(rows: int) -> Cut:
    """Return a shard's largest size. ``ValueError`` for less than a row."""
    if rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {rows}")
    return Cut(rows, SHARD.bytes)


def as_engine(engine: Engine | str) -> Engine:
    """Return an engine, or the one with this name."""
    return Engine(engine) if isinstance(engine, str) else engine


def run(
    task: str,
    paths: Paths,
    out: Path,
    names: Named,
    options: JSONObject,
    cut: Cut,
    engine: Engine,
    progress: Progress | None,
    check: Callable[[GPT2], None],
) -> Result:
    """Plan a run and do all that isn't done yet. See `score`."""
    packages.arrow()
    if task == "capture" and names.dtype not in FULL:
        raise ValueError(f"captures are taken in full precision, {' or '.join(FULL)}, got dtype {names.dtype!r}")
    home = hub.locate(names.model)
    where = names.model if home != Path(names.model).expanduser() else str(home.absolute())
    backend = available.chosen(names.backend)
    check(models.without_weights(home, backend))
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    for path in given:
        if path.is_dir() and resolved(path) in (resolved(out), *resolved(out).parents):
            raise ValueError(f"{out} must not lie in {path}, whose files are the corpus")
    files = inputs.files_of(given)
    sources, parts = inputs.scan(files, cut)
    ids = kind_of_ids(firsts(sources, parts, names.field), names.id_field)
    job = Job(task, where, names.dtype, backend, models.fingerprint(home), names.field, names.id_field, ids, options)
    with folder.held(out):
        folder.begin(out, job, sources, parts, cut)
        folder.sweep(out)
        if task == "capture":
            captures.begin(out, home, job, len(parts))
        return carry_out(job, sources, parts, out, engine, progress)


def firsts(sources: Sequence[Source], parts: Sequence[Part], field: str) -> Iterator[Line]:
    """Yield each file's first sound row. ``ValueError`` if no row at a file's beginning has the field."""
    for number, some in itertools.groupby(parts, lambda part: part.source):
        source = sources[number]
        lines = [line for line in inputs.read(source, next(some)) if line.error is None]
        has = {name for line in lines for name in line.fields}
        if lines and source.kind != "text" and field not in has and not (field == "text" and "prompt" in has):
            raise ValueError(f"no row at the beginning of {source.path} has a {field!r}; --field can name another")
        yield from lines[:1]


def carry_out(
    job: Job, sources: Sequence[Source], parts: Sequence[Part], out: Path, engine: Engine, progress: Progress | None
) -> Result:
    """Do the parts that aren't done, and return what the folder then holds."""
    total = sum(part.rows for part in parts)
    there = folder.done(out, job.task)
    missing = [part for part in parts if part.number not in there]
    errors: list[JSONObject] = []
    found: dict[int, Mapping[str, float]] = {}
    rows = 0

    def note(about: JSONObject) -> None:
        nonlocal rows
        errors.extend(about["errors"])
        found[about["part"]] = about["sums"]
        rows += about["rows"]
        if progress is not None:
            progress(rows, total)

    try:
        for path in there.values():
            note(shards.about(path))
        for about in engine.run(job, sources, missing, out):
            note(about)
    finally:
        folder.write_errors(out, errors)
    sums: dict[str, float] = {}
    for part in sorted(found):  # in the parts' order, so that the sums have the same bits whoever was first
        for name, value in found[part].items():
            sums[name] = sums.get(name, 0) + value
    errors.sort(key=lambda one: one["row"])
    return Result(out, rows, len(found), len(missing), errors, sums)

"""``gpt2-np corpus score`` and ``capture``: corpora larger than a machine, by one process or by many machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..model.choices import BACKENDS, DTYPES, FULL
from .options import FC, GroupedCommand, backend_option, capture_options, dtype_option, grouped, model_option
from .plain import dumps
from .progress import bar
from .suggestions import Suggesting

if TYPE_CHECKING:
    from ..corpora import Engine, Result

PATH = click.Path(path_type=Path)
EXAMPLES = {
    "Corpus": "gpt2-np corpus score books/ scores --field content --id-field url",
    "Engine": "gpt2-np corpus score books.parquet scores --engine ray --address auto --cores 4",
}


@click.group(
    "corpus",
    cls=Suggesting,
    short_help="Score, continue or capture corpora of any size, on one machine or many.",
    invoke_without_command=True,
)
@click.pass_context
def corpus_group(context: click.Context) -> None:
    """Process a corpus row by row into a folder of shards, in this process or on the machines of a Ray cluster.

    A corpus consists of files, or of folders of files: a .jsonl file holds one object on each line, a .parquet file is
    Parquet, and any other file holds one text on each line. A run that was killed continues where it stopped when the
    same command is given again. A row that fails is reported in OUT/_errors.jsonl, and the exit status is then 1.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def task(
    name: str, summary: str, field: str, dtypes: tuple[str, ...]
) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator for subcommands with IN… and OUT, and the options that all tasks share.

    The command's function is given the values of the shared options as one mapping.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        options: list[Callable[[Any], Any]] = [
            click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=PATH),
            click.argument("out", metavar="OUT", type=PATH),
            *corpus_options(field),
            *engine_options(),
            grouped(
                "Output", "--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else."
            ),
            model_option(),
            dtype_option(dtypes),
        ]
        if dtypes is DTYPES:
            options.append(backend_option("The implementation: compiled kernels, or readable NumPy.", BACKENDS))

        @wraps(function)
        def command(inputs: tuple[Path, ...], out: Path, **given: Any) -> None:
            shared = {one: given.pop(one) for one in SHARED if one in given}
            function(inputs, out, shared, **given)

        for option in reversed(options):
            command = option(command)
        return corpus_group.command(name, cls=GroupedCommand, examples=EXAMPLES, short_help=summary)(command)

    return decorate


def corpus_options(field: str) -> list[Callable[[FC], FC]]:
    """Return the options that say how rows are read, and how many of them make a shard."""
    where = "JSONL and Parquet: the field that holds a row's"
    return [
        grouped("Corpus", "--field", default=field, show_default=True, help=f"{where} text, or ids."),
        grouped("Corpus", "--id-field", default="id", show_default=True, help=f"{where} id, which is copied."),
        grouped("Corpus", "--shard-rows", type=click.IntRange(min=1), default=1024, show_default=True, help=SHARD),
    ]


SHARD = "The largest number of rows in a shard. A worker takes one shard at a time, and does it again if it is killed."


def engine_options() -> list[Callable[[FC], FC]]:
    """Return the options that say who does the work."""
    room = "[default: as many as the cluster has room for]"
    new = "[default: RAY_ADDRESS, else a new one]"
    return [
        grouped(
            "Engine", "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help=WHO
        ),
        grouped("Engine", "--actors", type=click.IntRange(min=1), help=f"Ray: the number of actors.  {room}"),
        grouped(
            "Engine",
            "--cores",
            type=click.IntRange(min=1),
            help="Ray: the number of cores, and of threads, for each actor.  [default: 1]",
        ),
        grouped(
            "Engine", "--address", envvar="RAY_ADDRESS", help=f"Ray: the address of a running cluster, or auto.  {new}"
        ),
    ]


ENGINE = ("engine", "actors", "cores", "address")
SHARED = (*ENGINE, "field", "id_field", "shard_rows", "as_json", "model", "dtype", "backend")
WHO = "Work in this process on all cores, or with Ray's actors on many machines (the `ray` extra)."


def engine_of(engine: str, actors: int | None, cores: int | None, address: str | None) -> Engine:
    """Return the engine that the options name."""
    from ..corpora import Engine

    if engine == "local":  # RAY_ADDRESS may be set for other programs
        source = click.get_current_context().get_parameter_source
        typed = source("address") is click.core.ParameterSource.COMMANDLINE
        return Engine(engine, actors, 1 if cores is None else cores, address if typed else None)
    return Engine(engine, actors, 1 if cores is None else cores, address)


def finish(
    work: Callable[..., Result], inputs: tuple[Path, ...], out: Path, shared: Mapping[str, Any], **own: Any
) -> None:
    """Do the work with a bar of progress, print what came of it, and leave with status 1 where rows failed.

    `shared` are the values of the options that all tasks have, `own` those of the task's own.
    """
    said = dict(shared)
    as_json = said.pop("as_json")
    engine = engine_of(*(said.pop(name) for name in ENGINE))
    with bar(None, "row") as progress:

        def told(done: int, total: int) -> None:
            progress.total = total
            progress.update(int(done - progress.n))

        result = work(inputs, out, **own, **said, engine=engine, progress=told)
    if as_json:
        counts = {"rows": result.rows, "failed": len(result.errors), "shards": result.shards, "new_shards": result.new}
        print(dumps({"out": str(result.folder), **counts, **result.sums}))
    else:
        print("\n".join(in_lines(result)))
    if result.errors:
        sys.exit(1)


def in_lines(result: Result) -> list[str]:
    """Return a run's outcome in lines for people to read."""
    shards = "1 shard" if result.shards == 1 else f"{result.shards:,} shards"
    lines = [f"{result.folder}: {result.rows:,} rows in {shards}, {result.new:,} of them new"]
    if "nll" in result.sums and result.sums["tokens"]:
        lines.append(f"{result.bits_per_byte:.4f} bits per byte ({result.sums['tokens']:,} tokens)")
    if "texts" in result.sums:
        lines.append(f"{result.sums['texts']:,} texts, {result.sums['tokens']:,} tokens")
    if result.errors:
        first = result.errors[0]
        lines.append(f"{len(result.errors):,} rows failed, the first, row {first['row']}: {first['error']}")
        lines.append(f"all of them are in {result.folder / '_errors.jsonl'}")
    return lines


@task("score", "Score every row of a corpus.", "text", DTYPES)
@grouped("Score", "--prompt", help="The prompt of every text that has none of its own.")
@grouped("Score", "--stride", type=int, help="The number of tokens between windows, for texts longer than the context.")
def score(inputs: tuple[Path, ...], out: Path, shared: dict[str, Any], prompt: str | None, stride: int | None) -> None:
    """Score each row of IN. OUT becomes a folder of Parquet with id, nll (nats), tokens and bytes.

    \b
    gpt2-np corpus score books.jsonl scores
    gpt2-np corpus score web/*.parquet scores --engine ray --address auto --dtype int8

    A row without an id gets its number, counted from 0 through all files. A row of JSONL or Parquet may also hold a
    prompt, which comes before its text, and a stride.
    """
    from .. import corpora

    finish(corpora.score, inputs, out, shared, prompt=prompt, stride=stride)


@task("capture", "Capture activations of every row of a corpus.", "text", FULL)
@capture_options("a row is")
def capture(
    inputs: tuple[Path, ...], out: Path, shared: dict[str, Any], names: tuple[str, ...], length: int | None, store: str
) -> None:
    """Capture activations of each row of IN into OUT, a folder of safetensors that other commands read as a capture.

    \b
    gpt2-np corpus capture books.jsonl captured --names "blocks.*.resid_post" --store float16
    gpt2-np internals train-dictionary captured sae --hook-name blocks.4.hook_resid_post

    A row is cut into pieces as `internals capture` cuts a file; each piece begins with end-of-text.
    """
    from .. import corpora

    finish(corpora.capture, inputs, out, shared, names=names, length=length, store=store)

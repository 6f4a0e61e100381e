"""``gpt2-np corpus generate``: every row of a corpus continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..model.choices import DTYPES
from .constraints import constraint_options
from .corpus import engine_of, finish, task
from .decoding import ASSISTANCE, LENGTH, decoding_options
from .options import Text, grouped


@task("generate", "Continue every row of a corpus.", "prompt", DTYPES)
@decoding_options
@grouped(
    LENGTH,
    "--stop",
    "--stop-strings",
    "stop_strings",
    multiple=True,
    type=Text(),
    help="End once this was written (\\n: a line's end, \\t: a tab); repeatable.",
)
@grouped(
    ASSISTANCE,
    "--assistant-dtype",
    type=click.Choice(DTYPES),
    help="What the smaller model's weights are kept in.  [default: float32]",
)
@grouped(
    "Sampling", "--generation-config", is_flag=True, help="Settings of generation_config.json for options not given."
)
@constraint_options
def generate(
    inputs: tuple[Path, ...],
    out: Path,
    field: str,
    id_field: str,
    shard_rows: int,
    engine: str,
    actors: int | None,
    cores: int | None,
    address: str | None,
    as_json: bool,
    model: str,
    dtype: str,
    backend: str | None,
    stop_strings: tuple[str, ...],
    **options: Any,
) -> None:
    """Continue each row of IN: OUT is a folder of Parquet with id, sequence, prompt, text, ids, logprobs and more.

    \b
    gpt2-np corpus generate prompts.jsonl texts --max-new-tokens 40 --do-sample --seed 1
    gpt2-np corpus generate prompts.parquet texts --engine ray --address auto

    A row of JSONL or Parquet holds a prompt, and may hold an id and options of its own, as a line of `generate
    --prompts`; they go before what is typed. With a seed every row draws what `generate` draws for it alone.
    """
    from .. import corpora

    source = click.get_current_context().get_parameter_source
    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    if options["generation_config"]:  # its settings give way to what was typed, not to defaults
        chosen = {name: value for name, value in chosen.items() if source(name) is not ParameterSource.DEFAULT}
    if stop_strings:
        chosen["stop_strings"] = list(stop_strings)
    if "assistant_dtype" in chosen and "assistant_model" not in chosen:
        raise ValueError("--assistant-dtype needs --assistant-model; give it too, or leave --assistant-dtype out")
    who = engine_of(engine, actors, cores, address)
    finish(
        lambda progress: corpora.generate(
            inputs,
            out,
            model=model,
            dtype=dtype,
            backend=backend,
            options=chosen,
            field=field,
            id_field=id_field,
            shard_rows=shard_rows,
            engine=who,
            progress=progress,
        ),
        as_json,
    )

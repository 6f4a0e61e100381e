"""``gpt2-np generate``: continue a prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..text.healing import wanted
from .constraints import EXAMPLES as CONSTRAINT_EXAMPLES
from .constraints import constraint_options
from .decoding import EXAMPLES as DECODING_EXAMPLES
from .decoding import beside_methods, decoding_options, typed
from .explain import explained, write_trace
from .lines import Line, standard_input
from .many import fields, generate_many
from .options import GroupedCommand, grouped, load, model_options, output_option, prompts_option
from .plain import dumps
from .progress import compiling

OUTPUT = "Output"
EXAMPLES = {
    "Input": "gpt2-np generate --prompts prompts.jsonl --output results.jsonl",
    OUTPUT: 'gpt2-np generate "One day" --json | jq .ids',
    "Model": 'gpt2-np generate "One day" --model gpt2-medium --dtype int8',
}


@click.command(
    cls=GroupedCommand, examples=DECODING_EXAMPLES | CONSTRAINT_EXAMPLES | EXAMPLES, short_help="Continue a prompt."
)
@click.argument("prompt", required=False)
@prompts_option("Continue each prompt of a file")
@decoding_options
@beside_methods
@constraint_options
@output_option()
@grouped(OUTPUT, "--json", "as_json", is_flag=True, help="Print one JSON object on each line and nothing else.")
@grouped(
    OUTPUT,
    "--explain",
    is_flag=True,
    help="Show at each step how much every processor removed; for beam search, show the beams.",
)
@grouped(
    OUTPUT,
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the same to a file as JSON, one object for each step.",
)
@model_options
def generate(
    prompt: str | None,
    prompts: Path | None,
    output: Path | None,
    model: str,
    dtype: str,
    backend: str | None,
    device: str | None,
    as_json: bool,
    explain: bool,
    trace_file: Path | None,
    **options: Any,
) -> None:
    """Continue PROMPT ("-" reads all of standard input). Decoding is greedy without --do-sample or --num-beams.

    In a terminal the text appears as it is generated. With --prompts or --output, results are JSON, one object on each
    line, in the order of the prompts and each with its "index". The exit status is 1 if one of them is an "error".
    """
    if (prompt is None) == (prompts is None):
        need = "give a text, - for standard input, or --prompts FILE"
        raise click.UsageError(f"Missing argument 'PROMPT': {need}" if prompt is None else f"{need}, and only one")
    if prompt == "-":
        prompt = standard_input()
    many = prompts is not None or output is not None
    if many and (explain or trace_file is not None):
        raise ValueError("--explain and --trace are for one prompt; leave them out beside --prompts and --output")
    chosen = typed(options)
    gpt2 = load(model, dtype, backend, device)
    assistant_dtype = chosen.pop("assistant_dtype", None)
    if "assistant_model" in chosen:
        chosen["assistant_model"] = load(chosen["assistant_model"], assistant_dtype or "float32", backend, device)
    _, checked = gpt2.options(chosen)
    compiling(gpt2)
    if many:
        given = [Line(0, {"prompt": prompt})] if prompts is None else prompts
        if not generate_many(gpt2, given, chosen, output):
            sys.exit(1)
        return
    assert prompt is not None
    heals = wanted(dict(chosen), gpt2.generation_config)
    if as_json and explain:
        raise ValueError("--explain prints a table, --json nothing but JSON; write the steps with --trace FILE instead")
    if as_json or explain or trace_file is not None or not checked.streams or heals:
        trace: list[Any] | None = [] if explain or trace_file is not None else None
        written = gpt2.generate(prompt, trace=trace, **chosen)
        if trace_file is not None and trace is not None:
            write_trace(trace_file, trace, gpt2)
        several = written if isinstance(written, list) else [written]
        for number, one in enumerate(several, 1):
            if as_json:
                print(dumps(fields(prompt, one) | ({"healed": one.prompt} if heals else {})))
            else:
                if len(several) > 1:
                    score = "" if one.score is None else f", score {one.score:.4f}"
                    print(f"[{number}{score}]")
                print((one.prompt if heals else prompt) + one.text)
        if explain and trace is not None:
            print(f"\n{explained(trace, gpt2)}")
        return
    pieces = gpt2.stream(prompt, **chosen)  # refuses what can't be, before anything is printed
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    sys.stdout.flush()

"""``gpt2-np score``: how well a model predicts a text."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..system.files import read_text
from .lines import Line, standard_input
from .many import score_many
from .options import GroupedCommand, grouped, load, model_options, output_option, prompts_option
from .plain import dumps
from .progress import bar, compiling


@click.command(cls=GroupedCommand, short_help="Measure how well a model predicts a text.")
@click.argument("text", required=False)
@grouped("Input", "-f", "--file", type=click.Path(path_type=Path), help="Score this file; - is standard input.")
@grouped("Input", "--prompt", help="A prompt that comes before the text; only the text is scored.")
@grouped("Input", "--stride", type=int, help="The number of tokens between windows, for texts longer than the context.")
@prompts_option("Score each text of a file")
@output_option()
@grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@model_options
def score(
    text: str | None,
    file: Path | None,
    prompt: str | None,
    stride: int | None,
    prompts: Path | None,
    output: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
    backend: str | None,
    device: str | None,
) -> None:
    """Measure the bits per byte and the perplexity of TEXT or of a file: lower values mean better predictions.

    \b
    gpt2-np score "The old man had three sons."
    gpt2-np score " throne." --prompt "The king sat on his"
    gpt2-np score --file book.txt --stride 256

    With --prompts or --output, results are JSON, one object on each line, in the order of the texts and each with its
    "index". The exit status is 1 if one of them is an "error". A line of JSONL holds a "text", and may hold a "prompt"
    and a "stride".
    """
    if [text is None, file is None, prompts is None].count(False) != 1:
        raise ValueError("give either a TEXT or --file or --prompts")
    if file is not None:
        text = standard_input() if str(file) == "-" else read_text(file)
    elif text == "-":
        text = standard_input()
    gpt2 = load(model, dtype, backend, device)
    if prompts is not None or output is not None:
        compiling(gpt2)
        given = {name: value for name, value in {"prompt": prompt, "stride": stride}.items() if value is not None}
        if not score_many(gpt2, prompts or [Line(0, {"text": text})], given, output):
            sys.exit(1)
        return
    assert text is not None
    ids = gpt2.tokenizer.encode(text)
    compiling(gpt2)
    with bar(len(ids), "token") as progress:
        result = gpt2.score(text, prompt=prompt, stride=stride, progress=progress.update)
    if as_json:
        print(
            dumps(
                {
                    "nll": result.nll,
                    "tokens": result.tokens,
                    "bytes": result.bytes,
                    "bits_per_byte": result.bits_per_byte,
                    "perplexity": result.perplexity,
                }
            )
        )
        return
    print(
        f"{result.bits_per_byte:.4f} bits per byte, perplexity {result.perplexity:.2f} "
        f"({result.tokens:,} tokens, {result.bytes:,} bytes)"
    )

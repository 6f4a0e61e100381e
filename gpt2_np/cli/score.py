"""``gpt2-np score``: how well a model predicts a text."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import GroupedCommand, grouped, load, model_options
from .plain import dumps
from .progress import bar, compiling


@click.command(cls=GroupedCommand, short_help="Measure how well a model predicts a text.")
@click.argument("text", required=False)
@grouped("Input", "-f", "--file", type=click.Path(path_type=Path), help="Score this file ('-': standard input).")
@grouped("Input", "--prompt", help="What comes before the text: only the text is scored, given this.")
@grouped("Input", "--stride", type=int, help="Tokens between windows, for texts longer than the context.")
@grouped("Output", "--json", "as_json", is_flag=True, help="One JSON object and nothing else.")
@model_options
def score(
    text: str | None,
    file: Path | None,
    prompt: str | None,
    stride: int | None,
    as_json: bool,
    model: str,
    dtype: str,
    backend: str | None,
    device: str | None,
) -> None:
    """Bits per byte and perplexity of TEXT, or of a file: the lower, the better it is predicted.

    \b
    gpt2-np score "The old man had three sons."
    gpt2-np score " throne." --prompt "The king sat on his"
    gpt2-np score --file book.txt --stride 256
    """
    if (text is None) == (file is None):
        raise ValueError("give either a TEXT or --file")
    if file is not None:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} must be UTF-8 text; byte {error.start} is not") from None
    assert text is not None
    gpt2 = load(model, dtype, backend, device)
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

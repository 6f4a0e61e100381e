"""``gpt2-np corpus generate``: every row of a corpus continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..model.choices import DTYPES
from .constraints import constraint_options
from .corpus import finish, task
from .decoding import beside_methods, decoding_options, typed


@task("generate", "Continue every row of a corpus.", "prompt", DTYPES)
@decoding_options
@beside_methods
@constraint_options
def generate(inputs: tuple[Path, ...], out: Path, shared: dict[str, Any], **options: Any) -> None:
    """Continue each row of IN. OUT becomes a folder of Parquet with id, sequence, prompt, text, ids, logprobs and more.

    \b
    gpt2-np corpus generate prompts.jsonl texts --max-new-tokens 40 --do-sample --seed 1
    gpt2-np corpus generate prompts.parquet texts --engine ray --address auto

    A row of JSONL or Parquet holds a prompt, and may hold an id and options of its own, like a line of `generate
    --prompts`. A row's options take precedence over those of the command line. With a seed, every row gets the text
    that `generate` gives for it alone.
    """
    from .. import corpora

    finish(corpora.generate, inputs, out, shared, options=typed(options))

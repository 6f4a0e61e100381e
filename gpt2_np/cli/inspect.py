"""``gpt2-np inspect``: one prompt on one page."""

from __future__ import annotations

from pathlib import Path

import click

from .options import GroupedCommand, grouped
from .readable import bos_option, load_readable, readable_model_options


@click.command("inspect", cls=GroupedCommand, short_help="See inside: one prompt on one web page.")
@click.argument("prompt")
@grouped("Output", "-o", "--out", type=click.Path(path_type=Path), required=True, help="The page to write (.html).")
@grouped("Output", "--top", type=int, default=12, show_default=True, help="How many likely next tokens to list.")
@bos_option
@readable_model_options
def inspect_command(prompt: str, out: Path, top: int, bos: bool, model: str, dtype: str) -> None:
    """Write a page that shows, for PROMPT, what every head attends to, what each layer would say next (the logit lens),
    the next tokens' probabilities, and which heads and MLPs raised them.

    It is one file that needs no network; open it in any browser.
    """
    from ..internals.page import inspect_page
    from ..system.files import write_whole

    write_whole(out, inspect_page(load_readable(model, dtype), prompt, top=top, prepend_bos=bos).encode("utf-8"))
    print(out)

"""``gpt2-np inspect``: one prompt on one page."""

from __future__ import annotations

from pathlib import Path

import click

from .internals_graph import transcoders_option
from .options import GroupedCommand, grouped
from .readable import bos_option, load_readable, readable_model_options


@click.command(
    "inspect", cls=GroupedCommand, short_help="Show what happens inside the model for one prompt, on a web page."
)
@click.argument("prompt")
@grouped("Output", "-o", "--out", type=click.Path(path_type=Path), required=True, help="The page to write (.html).")
@grouped("Output", "--top", type=int, default=12, show_default=True, help="The number of likely next tokens to list.")
@grouped(
    "Dictionary",
    "--dictionary",
    metavar="NAME",
    help="Show the features of this dictionary: a folder, a hub id, a release, or tales.",
)
@grouped("Dictionary", "--dictionary-id", metavar="ID", help="The dictionary's id within a release, or a sub-folder.")
@grouped(
    "Dictionary",
    "--corpus",
    type=click.Path(path_type=Path),
    help="A file of texts, to show where the dictionary's features fire most.",
)
@transcoders_option(False)
@grouped("Transcoders", "--answer", help="The token whose logit the graph explains.  [default: the likeliest token]")
@grouped("Transcoders", "--versus", help="Explain the logit difference to this token.  [default: the second likeliest]")
@bos_option
@readable_model_options
def inspect_command(
    prompt: str,
    out: Path,
    top: int,
    dictionary: str | None,
    dictionary_id: str | None,
    corpus: Path | None,
    transcoders: Path | None,
    answer: str | None,
    versus: str | None,
    bos: bool,
    model: str,
    dtype: str,
) -> None:
    """Write a web page about PROMPT: what every head attends to, what each layer would predict next (the logit lens),
    the probabilities of the next tokens, and which heads and MLPs raised them. With --dictionary it also shows which
    features fire, and with --transcoders how features cause each other and the answer.

    The page is one file that needs no network; open it in any browser.
    """
    from ..internals import dictionaries
    from ..internals.page import inspect_page
    from ..system.files import write_whole
    from .internals_corpus import texts_of
    from .progress import bar

    if dictionary is None and (corpus is not None or dictionary_id is not None):
        raise ValueError("--corpus and --dictionary-id need a --dictionary")
    if (answer is None) is not (versus is None) or (answer is not None and transcoders is None):
        raise ValueError("--answer and --versus belong together, and need --transcoders")
    layers = [] if transcoders is None else dictionaries.load_layers(transcoders)
    gpt2 = load_readable(model, dtype)
    asked = None if answer is None else (gpt2.to_single_token(answer), gpt2.to_single_token(versus or ""))
    sae = None if dictionary is None else dictionaries.load(dictionary, dictionary_id)
    boards: list[dictionaries.Dashboard] = []
    if sae is not None and corpus is not None:
        with bar(0, "token") as progress:
            boards = dictionaries.dashboards(gpt2, sae, texts_of(gpt2, corpus, None), progress=progress.update)
    page = inspect_page(
        gpt2, prompt, top=top, prepend_bos=bos, dictionary=sae, dashboards=boards, transcoders=layers, question=asked
    )
    write_whole(out, page.encode("utf-8"))
    print(out)

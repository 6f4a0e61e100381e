"""``gpt2-np corpus merge``: what was made in parts, put together."""

from __future__ import annotations

from pathlib import Path

import click

from .corpus import PATH, corpus_group
from .options import GroupedCommand, grouped
from .plain import dumps

COUNTED = {"score": "rows", "generate": "rows", "capture": "rows", "captured": "texts", "lens": "texts"}


@corpus_group.command("merge", cls=GroupedCommand, short_help="Merge parts: shards, captures, lenses, figures.")
@click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=PATH)
@click.argument("out", metavar="OUT", type=PATH)
@grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def merge(inputs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Merge parts into OUT: the result is that of one run over all parts, in their order.

    \b
    gpt2-np corpus merge scores-a scores-b scores       folders of corpus score, generate or capture
    gpt2-np corpus merge captured-a captured-b captured   captures of `internals capture`
    gpt2-np corpus merge a.lens b.lens all.lens         Jacobian lenses: each text counts once
    gpt2-np corpus merge a.sums b.sums all.sums         of `internals evaluate-dictionary --sums`: its figures
    """
    from .. import corpora

    found = corpora.merge(inputs, out)
    about = {"out": str(out), "kind": found.kind, "parts": found.parts, COUNTED.get(found.kind, "texts"): found.count}
    if found.kind != "figures":
        counted = f"{found.count:,} {COUNTED[found.kind]}"
        print(dumps(about) if as_json else f"{out}: {counted} of {found.parts} parts ({found.kind})")
        return
    from ..internals.dictionaries import sums
    from .internals_dictionaries_made import table

    figures = sums.load(out)
    whole = {"hook_name": figures.hook_name} | figures.evaluation.as_json()
    print(dumps(about | whole) if as_json else table(figures.evaluation))

"""``gpt2-np internals patch`` and ``path``: activations of one run put into another."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from .internals import answers, draw, experiment, metric_of, of_activations, show
from .options import grouped
from .progress import bar
from .readable import bos_option, load_readable


@experiment("patch", "Find which activations carry the difference between two prompts.")
@click.argument("clean")
@click.argument("corrupted")
@answers
@bos_option
@of_activations("Patch", "The parts to patch one by one.")
def patch(
    clean: str,
    corrupted: str,
    answer: str,
    versus: str | None,
    bos: bool,
    point: str,
    over: str,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Put each activation of the CLEAN run into the CORRUPTED run, and measure the share of the difference that this
    restores."""
    from ..internals import patching
    from ..internals.labels import visible

    gpt2 = load_readable(model, dtype)
    before, after = (gpt2.to_ids(text, prepend_bos=bos) for text in (clean, corrupted))
    metric = metric_of(gpt2, answer, versus)
    with bar(0, "run") as progress:
        result = patching.activation_patch(
            gpt2, before, after, metric, point=point, over=over, progress=progress.update
        )
    tokens = gpt2.tokenizer.tokens(after)
    labels = [visible(token) for token in tokens] if over == "position" else None
    show(
        np.atleast_2d(result.restored.T).T,
        as_json,
        row="layer",
        column=over,
        labels=labels,
        clean=result.clean,
        corrupted=result.corrupted,
    )
    draw(out, lambda plots: plots.patching(result, tokens, title=f"Patching {point}"))


@experiment("path", "Find which heads act directly on which later parts.")
@click.argument("clean")
@click.argument("corrupted")
@answers
@bos_option
@grouped(
    "Path",
    "--to",
    "receivers",
    multiple=True,
    required=True,
    metavar="POINT[:HEAD]",
    help="A receiver, such as blocks.3.attn.q:5, blocks.3.mlp.pre or unembed; repeatable.",
)
def path(
    clean: str,
    corrupted: str,
    answer: str,
    versus: str | None,
    bos: bool,
    receivers: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Patch only what each head contributes directly to the receivers, and measure the share of the difference that
    this restores."""
    from ..internals import patching

    gpt2 = load_readable(model, dtype)
    wanted = [receiver(one) for one in receivers]
    metric = metric_of(gpt2, answer, versus)
    with bar(gpt2.config.n_layer * gpt2.config.n_head, "run") as progress:
        result = patching.path_patch(gpt2, clean, corrupted, metric, wanted, prepend_bos=bos, progress=progress.update)
    show(result.restored, as_json, row="layer", column="head", clean=result.clean, corrupted=result.corrupted)
    draw(out, lambda plots: plots.patching(result, title=f"Paths to {', '.join(receivers)}"))


def receiver(text: str) -> tuple[str, int | None]:
    """``blocks.3.attn.q:5`` → ("blocks.3.attn.q", 5)."""
    point, _, head = text.partition(":")
    if head and not head.isdigit():
        raise ValueError(f"a receiver is POINT or POINT:HEAD with a number, got {text!r}")
    return point, int(head) if head else None

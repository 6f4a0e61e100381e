"""``gpt2-np choose``: which of several continuations a model finds likeliest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from .options import GroupedCommand, grouped, load, model_options
from .plain import dumps
from .progress import compiling

if TYPE_CHECKING:
    from ..text.scoring import By


@click.command(cls=GroupedCommand, short_help="Rank continuations by their likelihood.")
@click.argument("prompt")
@click.argument("choices", nargs=-1, required=True)
@grouped(
    "Input",
    "--by",
    type=click.Choice(["sum", "token", "byte"]),
    default="sum",
    show_default=True,
    help="Rank choices by their log-probability: the sum, the mean per token, or the mean per byte.",
)
@grouped(
    "Output",
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object for each choice, best first, and nothing else.",
)
@model_options
def choose(
    prompt: str,
    choices: tuple[str, ...],
    by: By,
    as_json: bool,
    model: str,
    dtype: str,
    backend: str | None,
    device: str | None,
) -> None:
    """Rank CHOICES by how likely the model finds each of them after PROMPT.

    \b
    gpt2-np choose "The king sat on his" " throne" " horse" " hat"
    """
    gpt2 = load(model, dtype, backend, device)
    compiling(gpt2)
    ranked = gpt2.rank_choices(prompt, choices, by=by)
    if as_json:
        for one in ranked:
            print(
                dumps(
                    {
                        "choice": one.choice,
                        "index": one.index,
                        "ids": one.ids,
                        "logprob": one.logprob,
                        "per_token": one.per_token,
                        "per_byte": one.per_byte,
                        "share": one.share,
                    }
                )
            )
        return
    width = max(len(repr(one.choice)) for one in ranked)
    print(f"{'rank':>4}  {'choice':<{width}}  {'nats':>8}  {'a token':>7}  {'bits a byte':>11}  share")
    for place, one in enumerate(ranked, 1):
        bits = -one.per_byte / math.log(2)
        print(
            f"{place:>4}  {one.choice!r:<{width}}  {one.logprob:>8.3f}  {one.per_token:>7.3f}  {bits:>11.3f}  "
            f"{one.share:.1%} {'█' * round(30 * one.share)}"
        )

"""The options of ``gpt2-np generate`` that search or assist: beams of every kind, contrastive search, DoLa, …"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .options import grouped

BEAMS, CONTRAST, WHOLE, ASSIST = "Beam search", "Contrast", "Best of many", "Assistance (faster, the same text)"
EXAMPLES = {
    BEAMS: 'gpt2-np generate "One day" --num-beams 6 --num-return-sequences 3 --force-words " king"',
    CONTRAST: 'gpt2-np generate "One day" --penalty-alpha 0.6 --top-k 4',
    WHOLE: 'gpt2-np generate "One day" --do-sample --best-of 8',
    ASSIST: 'gpt2-np generate "One day" --model gpt2-xl --assistant-model gpt2 --num-assistant-tokens 5',
}


class Early(click.ParamType):
    """--early-stopping: true, false or never."""

    name = "true|false|never"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        known = {"true": True, "false": False, "never": "never"}
        if value not in known:
            self.fail(f"must be true, false or never, got {value!r}", param, ctx)
        return known[value]


class Layers(click.ParamType):
    """--dola-layers: low, high, or numbers separated by commas."""

    name = "low|high|n,n,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("low", "high"):
            return value
        try:
            return [int(number) for number in value.split(",")]
        except ValueError:
            self.fail(f"must be low, high, or layers separated by commas, got {value!r}", param, ctx)


class Words(click.ParamType):
    """--force-words: a text, or several of which one will do."""

    name = "text|text|…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        texts = value.split("|")
        return texts if len(texts) > 1 else value


def search_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Everything in this file, in the order in which help lists it."""
    for option in reversed(
        (
            grouped(BEAMS, "--num-beams", type=int, help="Follow so many texts at once and return the likeliest."),
            grouped(BEAMS, "--length-penalty", type=float, help="Above 0 favours long texts.  [default: 1]"),
            grouped(BEAMS, "--early-stopping", type=Early(), help="When to stop looking for better.  [default: false]"),
            grouped(BEAMS, "--num-beam-groups", type=int, help="Diverse beams: so many groups that keep apart."),
            grouped(BEAMS, "--diversity-penalty", type=float, help="How hard they keep apart."),
            grouped(
                BEAMS,
                "--force-words",
                "force_words_ids",
                multiple=True,
                type=Words(),
                help="The text must contain this, spaces included, or one of several; repeatable.",
            ),
            grouped(
                BEAMS,
                "--stochastic-beams",
                is_flag=True,
                default=None,
                help="With --do-sample: as many different texts as beams, drawn without replacement.",
            ),
            grouped(
                CONTRAST,
                "--penalty-alpha",
                type=float,
                help="With --top-k: of the best k what adds something new, from 0 (greedy) to 1.",
            ),
            grouped(CONTRAST, "--dola-layers", type=Layers(), help="What the last layer says more than earlier ones."),
            grouped(WHOLE, "--best-of", type=int, help="With --do-sample: the likeliest per token of so many samples."),
            grouped(WHOLE, "--exhaustive", is_flag=True, default=None, help="Every text there is, for tiny models."),
            grouped(
                ASSIST,
                "--prompt-lookup-num-tokens",
                type=int,
                metavar="N",
                help="Try the N tokens that followed the newest tokens before.",
            ),
            grouped(
                ASSIST, "--max-matching-ngram-size", type=int, help="Look for so many tokens at most.  [default: 2]"
            ),
            grouped(
                ASSIST,
                "--assistant-model",
                metavar="NAME",
                help="Try what a smaller model says, of the same vocabulary.",
            ),
            grouped(
                ASSIST,
                "--assistant-dtype",
                type=click.Choice(["float32", "float64", "bfloat16", "int8", "int4"]),
                help="What its weights are kept in.  [default: float32]",
            ),
            grouped(ASSIST, "--num-assistant-tokens", type=int, help="How many of its tokens a time.  [default: 20]"),
            grouped(
                ASSIST,
                "--num-assistant-tokens-schedule",
                type=click.Choice(["constant", "heuristic", "heuristic_transient"]),
                help="Heuristic: more where all were right, fewer where not.  [default: constant]",
            ),
            grouped(
                ASSIST,
                "--assistant-confidence-threshold",
                type=float,
                help="It stops after a token less probable than this.  [default: 0.4]",
            ),
        )
    ):
        function = option(function)
    return function

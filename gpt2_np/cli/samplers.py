"""The options of ``gpt2-np generate`` that other engines know: samplers, penalties, guidance, watermarks, orders."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from .options import grouped

OTHER, RULES, MARK = "Samplers of other engines", "Rules", "Watermark"
EXAMPLES = {
    OTHER: 'gpt2-np generate "One day" --do-sample --profile llama.cpp --xtc-probability 0.5',
    MARK: """gpt2-np generate "One day" --watermark '{"bias": 4}'""",
}


class JSONObject(click.ParamType):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = json.loads(value)
        except RecursionError:
            self.fail("must be a JSON object, got one that is nested too deeply", param, ctx)
        except ValueError as error:
            self.fail(f"must be a JSON object: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"must be a JSON object, got {value}", param, ctx)
        return found


class Names(click.ParamType):
    """A list of names, separated by commas."""

    name = "name,name,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return [name.strip().replace("-", "_") for name in value.split(",")]


def sampler_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Everything in this file, in the order in which help lists it."""
    for option in reversed(
        (
            grouped(
                OTHER,
                "--profile",
                type=click.Choice(["llama.cpp", "ctranslate2", "mlx-lm"]),
                help="The order, defaults and tie rule of that engine.",
            ),
            grouped(OTHER, "--order", type=Names(), help="The samplers in the order in which they act."),
            grouped(OTHER, "--min-tokens-to-keep", type=int, help="No sampler leaves fewer tokens."),
            grouped(OTHER, "--top-n-sigma", type=float, help="Only scores so many deviations below the best."),
            grouped(OTHER, "--xtc-probability", type=float, help="How often the top choices are excluded."),
            grouped(OTHER, "--xtc-threshold", type=float, help="What makes a top choice.  [default: 0.1]"),
            grouped(OTHER, "--dynatemp-range", type=float, help="Let the temperature follow the entropy, by so much."),
            grouped(OTHER, "--dynatemp-exponent", type=float, help="How it follows.  [default: 1]"),
            grouped(OTHER, "--mirostat", type=int, metavar="1|2", help="Steer the surprise of what is drawn."),
            grouped(OTHER, "--mirostat-tau", type=float, help="The surprise to aim at, in bits.  [default: 5]"),
            grouped(OTHER, "--mirostat-eta", type=float, help="How fast to learn.  [default: 0.1]"),
            grouped(RULES, "--penalty-last-n", type=int, help="Penalties look at the last so many tokens."),
            grouped(RULES, "--dry-multiplier", type=float, help="Above 0: don't continue what was said before."),
            grouped(RULES, "--dry-base", type=float, help="How the penalty grows with the length.  [default: 1.75]"),
            grouped(RULES, "--dry-allowed-length", type=int, help="Repeats so long are free.  [default: 2]"),
            grouped(RULES, "--dry-penalty-last-n", type=int, help="Look back so far.  [default: everything]"),
            grouped(
                RULES,
                "--dry-sequence-breaker",
                "dry_sequence_breakers",
                multiple=True,
                metavar="TEXT",
                help='No repeat reaches over this; repeatable.  [default: newline : " *]',
            ),
            grouped(RULES, "--guidance-scale", type=float, help="Above 1: away from the negative prompt."),
            grouped(RULES, "--negative-prompt", "negative_prompt_ids", metavar="TEXT", help="What to turn away from."),
            grouped(
                MARK,
                "--watermark",
                "watermarking_config",
                type=JSONObject(),
                metavar="JSON",
                help='Settings of a green-list watermark, or {}; with "keys" and "ngram_len" of SynthID\'s.',
            ),
        )
    ):
        function = option(function)
    return function

"""The options of ``gpt2-np generate`` that hold the new text to a form: a pattern, a schema, choices, a grammar."""

from __future__ import annotations

from pathlib import Path

import click

from ..system.files import read_text
from .options import FC, ParamType, grouped

FORM = "Form of the text (one of these; without the prompt, so most begin with a space)"
EXAMPLES = {FORM: r"""gpt2-np generate "The king was" --regex " (good|bad)[a-z ]{5,20}\." """.strip()}


class Schema(ParamType):
    """--json-schema: a schema, or the name of a file that holds one."""

    name = "file|text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value.strip() in ("true", "false") or value.lstrip().startswith("{"):
            return value
        return read_text(Path(value))


class File(ParamType):
    """A file's text."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return read_text(Path(value))


def constraint_options(function: FC) -> FC:
    """Everything in this file, in the order in which help lists it."""
    for option in reversed(
        (
            grouped(
                FORM,
                "--regex",
                metavar="PATTERN",
                help='A regular expression that the text must match, such as " (good|bad)[a-z ]{5,20}\\."',
            ),
            grouped(
                FORM,
                "--json-schema",
                type=Schema(),
                help="""A JSON schema: '{"type": "array", "items": {"type": "integer"}, "maxItems": 3}'""",
            ),
            grouped(
                FORM,
                "--choice",
                multiple=True,
                metavar="TEXT",
                help='One of the texts that are allowed; repeatable: --choice " good" --choice " bad"',
            ),
            grouped(
                FORM,
                "--grammar",
                type=File(),
                help="""A grammar in Lark's syntax, such as: start: (" ha" | " ho")+ "!", or in GBNF: root ::= …""",
            ),
        )
    ):
        function = option(function)
    return function

"""Pairs of prompts for attribution: one pair as arguments, or a file of them as `internals task --pairs` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decoders.base.errors import shown

from .internals import metric_of
from .lines import Line, read_lines
from .options import FC, grouped

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2

Prompt = str | list[int]
Token = str | int


@dataclass(frozen=True)
class Asked:
    """The question for an attribution: ``clean`` and ``corrupted`` prompts, one or a list of them, and the metric.

    ``title`` says it in words; ``count`` is the number of pairs of a file, None for one pair given as arguments.
    """

    clean: Prompt | list[Prompt]
    corrupted: Prompt | list[Prompt]
    metric: Any
    title: str
    count: int | None


def pairs_option(function: FC) -> FC:
    """--pairs, and the --answer and --versus of prompts that are given as arguments."""
    for option in (
        grouped("Measure", "--versus", help="Measure the logit difference to this token."),
        grouped("Measure", "--answer", help="The token that the prompt should lead to."),
        grouped(
            "Pairs",
            "--pairs",
            type=click.Path(path_type=Path, allow_dash=True),
            metavar="FILE|-",
            help='A file of pairs: {"clean", "corrupted", "answer", "wrong"} on each line, as `internals task --pairs` '
            "prints them.",
        ),
    ):
        function = option(function)
    return function


def question(answer: str, versus: str | None) -> str:
    """Describe the metric for a title."""
    return f"Why {answer!r}" + (f" and not {versus!r}?" if versus is not None else "?")


def needed(answer: str | None) -> str:
    """--answer, which prompts given as arguments must have. ``ValueError`` where it is missing."""
    if answer is None:
        raise ValueError("--answer is missing: the token that the prompt should lead to")
    return answer


def check_source(prompts: tuple[str | None, ...], pairs: Path | None) -> None:
    """``ValueError`` unless there is either a first prompt or a file of pairs."""
    if pairs is None and prompts[0] is None:
        raise ValueError("give the prompts, or --pairs with a file of them")
    if pairs is not None and any(one is not None for one in prompts):
        raise ValueError("--pairs has the prompts: give a file or prompts, not both")


def asked(
    gpt2: GPT2, prompts: tuple[str | None, str | None], answer: str | None, versus: str | None, pairs: Path | None
) -> Asked:
    """The prompts and the metric that the command line means; for a file, `answer` and `versus` where a line has none.

    ``ValueError`` names the line of a file that can't be a pair.
    """
    if pairs is not None:
        return of_file(gpt2, pairs, answer, versus)
    clean, corrupted = prompts
    if clean is None or corrupted is None:
        raise ValueError("a pair needs a clean and a corrupted prompt")
    right = needed(answer)
    return Asked(clean, corrupted, metric_of(gpt2, right, versus), question(right, versus), None)


def of_file(gpt2: GPT2, path: Path, answer: str | None, versus: str | None) -> Asked:
    """A file of pairs, each with the metric of its own tokens."""
    from ..gradients import log_probability, logit_difference

    clean: list[Prompt] = []
    corrupted: list[Prompt] = []
    right: list[int] = []
    wrong: list[int] = []
    name = "standard input" if str(path) == "-" else str(path)
    for line in read_lines(path, jsonl=True):
        try:
            fields = with_defaults(line, answer, versus)
            clean.append(prompt(fields, "clean"))
            corrupted.append(prompt(fields, "corrupted"))
            right.append(token(gpt2, fields, "answer"))
            if "wrong" in fields:
                wrong.append(token(gpt2, fields, "wrong"))
            if len(wrong) not in (0, len(clean)):
                raise ValueError('either every pair has a "wrong" token or none, and those before are otherwise')
        except ValueError as error:
            raise ValueError(f"{name}, pair {line.index + 1}: {error}") from None
    if not clean:
        raise ValueError(f"{name} must hold at least one pair, got none")
    metric = logit_difference(right, wrong) if wrong else log_probability(right)
    measure = "the right answer and not the wrong one" if wrong else "the right answer"
    return Asked(clean, corrupted, metric, f"Why {measure}? {len(clean)} pairs", len(clean))


def with_defaults(line: Line, answer: str | None, versus: str | None) -> dict[str, Any]:
    """A line's fields, the command line's tokens among them where it has none. ``ValueError`` for a broken line."""
    if line.error is not None:
        raise ValueError(line.error)
    defaults = {"answer": answer, "wrong": versus}
    return {name: one for name, one in defaults.items() if one is not None} | line.fields


def prompt(fields: dict[str, Any], name: str) -> Prompt:
    """One prompt of a line: a text, or ids."""
    found = fields.get(name)
    is_ids = isinstance(found, list) and found and all(type(one) is int for one in found)
    if not (isinstance(found, str) or is_ids):
        raise ValueError(f'a pair must have a "{name}", which is a text or ids, got {shown(found)}')
    return found  # type: ignore[return-value]


def token(gpt2: GPT2, fields: dict[str, Any], name: str) -> int:
    """One answer of a line, a text of one token or an id, as an id."""
    found = fields.get(name)
    if isinstance(found, str):
        return gpt2.to_single_token(found)
    if type(found) is not int:
        raise ValueError(f'a pair must have a "{name}", which is one token or an id, got {shown(found)}')
    if not 0 <= found < gpt2.config.vocab_size:
        raise ValueError(f'"{name}" must be between 0 and {gpt2.config.vocab_size - 1}, got {found}')
    return found

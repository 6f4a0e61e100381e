"""The options of decoding on the command line, derived from what each method states of its own (`decoders.methods`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from decoders.base.listed import Listed
from decoders.methods import OPTIONS, PROFILES, SEARCHES, option

from ..model.choices import DTYPES
from ..system.files import read_text
from .options import FC, ParamType, Text, grouped

if TYPE_CHECKING:
    from decoders.base.method import Option

LENGTH, ASSISTANCE = "Length", "Assistance (faster, the same text)"
# Groups of options in the order in which help lists them, with an example of each.
EXAMPLES = {
    LENGTH: 'gpt2-np generate "One day" --max-new-tokens 100 --stop "\\n"',
    "Sampling": 'gpt2-np generate "One day" --do-sample --temperature 0.8 --top-p 0.95 --seed 1',
    "Samplers of other engines": 'gpt2-np generate "One day" --do-sample --profile llama.cpp --xtc-probability 0.5',
    "Beam search": 'gpt2-np generate "One day" --num-beams 6 --num-return-sequences 3 --force-words " king"',
    "Contrast": 'gpt2-np generate "One day" --penalty-alpha 0.6 --top-k 4',
    "Best of many": 'gpt2-np generate "One day" --do-sample --best-of 8',
    ASSISTANCE: ('gpt2-np generate "One day" --model gpt2-xl --assistant-model gpt2 --num-assistant-tokens 5'),
    "Rules": 'gpt2-np generate "One day" --no-repeat-ngram-size 3 --repetition-penalty 1.2',
    "Watermark": """gpt2-np generate "One day" --watermark '{"bias": 4}'""",
}


class JSONObject(ParamType):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = json.loads(value)
        except RecursionError:
            self.fail("must be a JSON object, got one that is nested too deeply", param, ctx)
        except ValueError as error:
            self.fail(f"must be a JSON object: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"must be a JSON object, got {value}", param, ctx)
        return found


class Names(ParamType):
    """A list of names, separated by commas."""

    name = "name,name,…"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return [name.strip().replace("-", "_") for name in value.split(",")]


class Numbers(ParamType):
    """The numbers in a text file, separated by white space. ``ValueError`` where it holds anything else."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        words = read_text(Path(value)).split()
        try:
            return [float(word) for word in words]
        except ValueError as error:
            raise ValueError(f"{value} must hold numbers only: {error}") from None


class Ids(ParamType):
    """Ids of tokens, separated by commas."""

    name = "id,id,…"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            return [int(word) for word in value.split(",")]
        except ValueError:
            self.fail(f"must be ids separated by commas, got {value!r}", param, ctx)


class Early(ParamType):
    """True, false or never."""

    name = "true|false|never"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> bool | str:
        known: dict[str, bool | str] = {"true": True, "false": False, "never": "never"}
        if value not in known:
            self.fail(f"must be true, false or never, got {value!r}", param, ctx)
        return known[value]


class Layers(ParamType):
    """Low, high, or numbers separated by commas."""

    name = "low|high|n,n,…"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str | list[int]:
        if value in ("low", "high"):
            return value
        try:
            return [int(number) for number in value.split(",")]
        except ValueError:
            self.fail(f"must be low, high, or layers separated by commas, got {value!r}", param, ctx)


class Words(ParamType):
    """A text, or several of which one will do."""

    name = "text|text|…"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str | list[str]:
        texts = value.split("|")
        return texts if len(texts) > 1 else value


# How a value of each kind is written on the command line. Ids are given as text, which the model's tokenizer encodes.
TYPES: dict[str, ParamType] = {
    "whole": click.INT,
    "number": click.FLOAT,
    "name": click.STRING,
    "names": Names(),
    "numbers": Numbers(),
    "ids": Ids(),
    "prompts": click.STRING,
    "phrases": click.STRING,
    "words": Words(),
    "anything": click.STRING,
    "watermarking": JSONObject(),
    "layers": Layers(),
    "early": Early(),
    "profile": click.Choice(list(PROFILES)),
}


class DecodingOption(click.Option):
    """An option that a method of decoding states; the method's file is loaded when help is shown, not before."""

    def __init__(self, names: Sequence[str], listed: Listed) -> None:
        settings: dict[str, Any] = {"is_flag": True}
        if listed.kind != "flag":
            one_of_some = listed.kind == "name" and listed.choices
            settings = {"type": click.Choice(listed.choices) if one_of_some else TYPES[listed.kind]}
        super().__init__(names, default=None, multiple=listed.repeatable, **settings)

    @cached_property
    def stated(self) -> Option:
        """Its statement."""
        assert self.name is not None
        return option(self.name)

    @property
    def group(self) -> str:
        """The heading that help lists it under."""
        return self.stated.group

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its flags with what stands in the place of a value, and its help with the default."""
        default = default_of(self.stated)
        self.help = self.stated.help + (f"  [default: {default}]" if default else "")
        self.metavar = self.stated.metavar or None
        return super().get_help_record(ctx)


def default_of(stated: Option) -> str:
    """An option's default as it is typed; nothing where there is none, or for a flag."""
    value = stated.otherwise if stated.default is None else stated.default
    if value is None or stated.kind.name == "flag":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def decoding_options(function: FC) -> FC:
    """Every option that has a flag: those of searches, the most general first, then processors' in their order."""
    searches = [f"searches.{home}" for home in dict.fromkeys(reversed(SEARCHES.values()))]
    flags = [(name, listed) for name, listed in OPTIONS.items() if listed.flag]
    flags.sort(key=lambda flag: searches.index(flag[1].home) if flag[1].home in searches else len(searches))
    for name, listed in reversed(flags):
        function = click.option(name, *listed.flag.split("/"), cls=DecodingOption, listed=listed)(function)
    return function


def beside_methods(function: FC) -> FC:
    """The options of decoding that no method states: healing, stops, a draft model's dtype, the settings of a file."""
    for one in (
        grouped("Input", "--token-healing", is_flag=True, default=None, help=HEALS),
        grouped("Sampling", "--generation-config", is_flag=True, help=SETTINGS),
        grouped(ASSISTANCE, "--assistant-dtype", type=click.Choice(DTYPES), help=DRAFTS),
        grouped(LENGTH, "--stop", "--stop-strings", "stop_strings", multiple=True, type=Text(), help=STOPS),
    ):
        function = one(function)
    return function


HEALS = "Generate the prompt's last token again, in case the prompt ends inside a token."
SETTINGS = "Take options that aren't given from the model's generation_config.json."
DRAFTS = "The number format of the smaller model's weights.  [default: float32]"
STOPS = "End a text once it contains this (\\n is a line's end, \\t a tab); repeatable."


def typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as `GPT2.generate` takes them, but for --assistant-dtype.

    With --generation-config its settings give way to what was typed, not to defaults. ``ValueError`` for
    --assistant-dtype without a draft model.
    """
    source = click.get_current_context().get_parameter_source
    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    if options["generation_config"]:
        chosen = {name: value for name, value in chosen.items() if source(name) is not ParameterSource.DEFAULT}
    if "assistant_dtype" in chosen and "assistant_model" not in chosen:
        raise ValueError("--assistant-dtype needs --assistant-model; give it too, or leave --assistant-dtype out")
    return chosen

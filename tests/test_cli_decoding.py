"""The options of decoding on the command line: derived from what the methods state, and loaded only for help."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from decoders.base.listed import Listed
from decoders.base.method import Option
from decoders.base.value_types import FLAG, NUMBER
from decoders.methods import OPTIONS, every
from gpt2_np.cli import decoding
from gpt2_np.cli.generate import generate
from gpt2_np.cli.options import GroupedCommand

HELP = " ".join(CliRunner().invoke(generate, ["--help"]).stdout.split())
FLAGGED = [one for method in every() for one in method.options if one.group]


def test_every_option_with_a_group_has_a_flag_and_no_other() -> None:
    derived = {one.name for one in generate.params if isinstance(one, decoding.DecodingOption)}
    assert len(FLAGGED) > 50
    assert derived == {one.name for one in FLAGGED} == {name for name, listed in OPTIONS.items() if listed.flag}


@pytest.mark.parametrize("stated", FLAGGED, ids=lambda one: one.name)
def test_help_says_what_the_method_states(stated: Option) -> None:
    (parameter,) = [one for one in generate.params if one.name == stated.name]
    flags, told = parameter.get_help_record(click.Context(generate))
    assert set(OPTIONS[stated.name].flag.split("/")) <= set(re.split("[ ,]+", flags))
    assert flags.endswith(f" {stated.metavar}") if stated.metavar else True
    assert " ".join(told.split()) in HELP.split(f"{stated.group}: ")[1].split(" Example: ")[0]
    assert told.startswith(stated.help)
    default = stated.otherwise if stated.default is None else stated.default
    if default is None or stated.kind is FLAG:
        assert told == stated.help
    else:
        shown = re.fullmatch(r"\s+\[default: (.*)\]", told.removeprefix(stated.help))
        assert float(shown[1]) == default if isinstance(default, float) else shown[1] == str(default).lower()


def test_groups_are_in_order_and_the_general_comes_first() -> None:
    places = [HELP.index(f"{group}: ") for group in decoding.EXAMPLES]
    assert places == sorted(places)
    assert {one.group for one in FLAGGED} == set(decoding.EXAMPLES)
    for first, later in (
        ("--num-beams ", "--num-beam-groups "),
        ("--num-beams ", "--force-words "),
        ("-n, ", "--stop, "),
    ):
        assert HELP.index(first) < HELP.index(later)


def test_what_is_not_given_is_none() -> None:
    params = generate.make_context("generate", ["a"]).params
    assert {name: params[name] for name in OPTIONS if name in params} == {
        one.name: () if one.repeatable else None for one in FLAGGED
    }


def test_a_new_option_needs_no_edit_here(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = {
        "novel": Option("novel", NUMBER, otherwise=0.5, group="Sampling", metavar="SHARE", help="Something new."),
        "odd": Option("odd", FLAG, False, group="Novelties", help="In a group of its own."),
    }
    listed = {name: Listed("processors.novel", one.kind.name, f"--{name}") for name, one in stated.items()}
    monkeypatch.setattr(decoding, "OPTIONS", OPTIONS | listed)
    monkeypatch.setattr(decoding, "option", lambda name: stated.get(name) or Option(name, NUMBER, group="Rules"))
    seen = {}

    @click.command(cls=GroupedCommand, examples=decoding.EXAMPLES)
    @decoding.decoding_options
    def command(**options) -> None:
        seen.update({name: value for name, value in options.items() if value is not None and value != ()})

    assert CliRunner().invoke(command, ["--novel", "0.25", "--odd", "--top-k", "3"]).exit_code == 0
    assert seen == {"novel": 0.25, "odd": True, "top_k": 3}
    shown = CliRunner().invoke(command, ["--help"]).stdout
    assert "--novel SHARE" in shown.split("Sampling:")[1]
    assert "Something new.  [default: 0.5]" in shown
    assert "--odd" in shown.split("Novelties:")[1]
    assert "In a group of its own.\n" in shown


def test_methods_are_loaded_for_help_alone() -> None:
    code = """
import contextlib, sys
from gpt2_np.cli.generate import generate
def loaded(): return {name for name in sys.modules if name.startswith(("decoders.processors.", "decoders.searches."))}
context = generate.make_context("generate", ["a", "--do-sample", "--top-k", "5", "--num-beams", "4"])
assert "decoders.processors.order" in loaded()
assert not loaded() & {"decoders.processors.top_k", "decoders.processors.dry", "decoders.searches.beam"}, loaded()
generate.get_help(context)
assert loaded() >= {"decoders.processors.top_k", "decoders.processors.dry", "decoders.searches.beam"}
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

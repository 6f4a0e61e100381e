"""What every method says of itself is whole and agrees with itself, and what is written from it is up to date."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from decoders import Options, fields, methods
from decoders.base.method import Interval, Method, Option
from decoders.options import DEFAULTS
from decoders.processors.watermark import Watermarking

ROOT = Path(__file__).parent.parent
EVERY = methods.every()
STATED = [(method, option) for method in EVERY for option in method.options]
OPTIONS = {option.name: option for _, option in STATED}
each_method = pytest.mark.parametrize("method", EVERY, ids=lambda method: method.name)
each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)


# ---- what is written from the statements ---------------------------------------------------------------------------


def test_what_is_written_from_the_statements_is_up_to_date() -> None:
    code = "import sys; sys.path.insert(0, 'scripts'); from write_methods import composed; sys.stdout.write(composed())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    # Compared as syntax trees: how a line is laid out is the formatter's, which tests do without.
    there = (ROOT / "decoders/fields.py").read_text(encoding="utf-8")
    assert ast.dump(ast.parse(done.stdout)) == ast.dump(ast.parse(there)), "run scripts/write_methods.py"


def test_every_option_is_stated_once_and_is_a_field() -> None:
    assert len(STATED) == len(OPTIONS)
    assert OPTIONS.keys() == methods.OPTIONS.keys() == {field.name for field in dataclasses.fields(Options)}


NAMES = vars(fields) | {"Watermarking": Watermarking}
FIELDS, KEYWORDS = (typing.get_type_hints(kind, NAMES, NAMES) for kind in (fields.Fields, fields.Names))


@each_option
def test_a_field_has_the_type_and_the_default_of_its_option(option: Option) -> None:
    assert FIELDS[option.name] == eval(option.annotation, NAMES)
    assert (option.name in KEYWORDS) == (option.name != "num_return_sequences")
    assert KEYWORDS.get(option.name, int) == eval(option.keyword, NAMES)
    assert DEFAULTS[option.name] == option.default


# ---- each method and option ----------------------------------------------------------------------------------------


def test_each_method_stands_where_its_name_says() -> None:
    acting = methods.PROCESSORS | methods.STOPS
    for name, home in (acting | methods.SEARCHES).items():
        method = methods.method(name)
        assert method.name == name
        assert (method.make is not None) == (name in methods.PROCESSORS)
        assert (method.run is not None) == (name in methods.SEARCHES)
        assert (method.stop is not None) == (name in methods.STOPS)
        assert method in methods.stated(f"{'processors' if name in acting else 'searches'}.{home}")
    homes = [f"processors.{home}" for home in acting.values()]
    homes += [f"searches.{home}" for home in methods.SEARCHES.values()]
    for home in homes:
        assert all(method in EVERY for method in methods.stated(home)), f"a method of {home} isn't in the list"
    for name in methods.PROFILES:
        assert methods.profile(name).name == name
    for method, option in STATED:
        assert method in methods.stated(methods.OPTIONS[option.name].home)


@each_method
def test_what_a_method_names_exists(method: Method) -> None:
    own = {option.name for option in method.options}
    for names in (method.askers, method.reads, method.excludes, method.takes):
        assert set(names) <= OPTIONS.keys()
        assert len(names) == len(set(names))
    assert set(method.unread) <= own
    assert not own & set(method.reads), "its own options it gets anyway"
    assert not set(method.askers) & set(method.excludes)
    assert set(method.takes) <= set(method.reads), "what it takes it must read"
    shown = [
        *method.trials.values(),
        *(page.example for page in method.documentation),
        *(cost.settings for cost in method.costs),
    ]
    for options in shown:
        assert options.keys() <= OPTIONS.keys(), options


@pytest.mark.parametrize("name", methods.PROFILES)
def test_what_a_profile_names_exists(name: str) -> None:
    profile = methods.profile(name)
    processors = methods.PROCESSORS.keys()
    assert set(profile.order) <= processors
    assert len(set(profile.order)) == len(profile.order)
    assert profile.makes.keys() <= set(profile.order)
    assert set(profile.keeps) <= {method.name for method in EVERY if method.keeps} & set(profile.order)
    for named in (profile.defaults, profile.lacks, profile.ranges):
        assert set(named) <= OPTIONS.keys()
    for option, within in profile.ranges.items():
        assert narrower(Interval.parse(within), Interval.parse(OPTIONS[option].interval))
    assert Options(profile=name, do_sample=True)  # its defaults can be


def narrower(one: Interval, other: Interval) -> bool:
    return other.low <= one.low <= one.high <= other.high


@each_option
def test_an_option_agrees_with_itself(option: Option) -> None:
    assert set(option.needs) <= OPTIONS.keys() - {option.name}
    if option.interval:
        interval = Interval.parse(option.interval)
        assert option.interval[0] + option.interval[-1] in ("[]", "[)", "(]", "()")
        assert interval.low < interval.high
        assert option.kind.name in ("whole", "number"), "a range is one of numbers"
    assert not (option.interval and option.choices)
    for value in (option.default, option.otherwise, *option.choices):
        if value is not None:
            option.check(value)
    assert option.default is None or option.otherwise is None, "what isn't given is its default"


@each_option
def test_an_option_of_the_command_line_has_help_and_a_group(option: Option) -> None:
    flag = methods.OPTIONS[option.name].flag
    assert bool(flag) == bool(option.group)
    if flag:
        assert option.help.endswith((".", "]"))
        assert flag.split("/")[-1].startswith("--")
    assert bool(option.flag or option.metavar or option.repeatable) <= bool(flag)


def test_no_two_options_have_one_flag() -> None:
    flags = [one.flag for one in methods.OPTIONS.values() if one.flag]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("text", ["(0, 1]", "[0, inf)", "(-inf, inf)", "[1, 65536]"])
def test_a_range_is_read(text: str) -> None:
    interval = Interval.parse(text)
    assert (interval.open_low, interval.open_high) == (text[0] == "(", text[-1] == ")")
    for end, is_open in ((interval.low, interval.open_low), (interval.high, interval.open_high)):
        assert interval.holds(end) != is_open
    inside = np.clip(0.5, interval.low, interval.high) if interval.high < np.inf else interval.low + 1
    assert interval.holds(inside) or interval.low == -np.inf


@pytest.mark.parametrize(
    ("text", "phrase"),
    [("(0, inf)", "above 0"), ("[1, inf)", "at least 1"), ("(0, 1]", "in (0, 1]"), ("(-inf, inf)", "finite")],
)
def test_a_range_in_words(text: str, phrase: str) -> None:
    assert Interval.parse(text).phrase == phrase

"""What may be drawn for an option, and beside it: from the methods' statements alone, so that new ones simply join."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from decoders import Options, methods
from decoders.base.method import Interval, Method, Option
from decoders.options import DEFAULTS
from gpt2_np.session.first_layers import first_layers

Drawn = st.SearchStrategy[Any]
FEW = 9  # numbers without an end to their range go no further from its start (or from 0), but for one that is far out
FAR = {"whole": 99, "number": 1e30}
FINE = 0.01  # nor nearer to an end that is open
EVERY = methods.every()
SAMPLERS = [method.name for method in EVERY if method.make is not None and method.only == "sampling"]


# ---- values --------------------------------------------------------------------------------------------------------


def values_of(option: Option, vocabulary: int) -> Drawn:
    """Values that an option accepts; ids are below `vocabulary`."""
    if option.choices:
        return st.sampled_from(option.choices)
    if option.kind.name in FAR:
        return numbers(option)
    return OF_KIND[option.kind.name](st.integers(0, vocabulary - 1), 0 if option.may_be_empty else 1)


def numbers(option: Option) -> Drawn:
    """Numbers within an option's range; where it has no end, one that is far out too."""
    interval, whole = Interval.parse(option.interval or "(-inf, inf)"), option.kind.name == "whole"
    step = 1 if whole else FINE
    low = interval.low + step * interval.open_low if interval.low > -np.inf else -FEW
    high = interval.high - step * interval.open_high if interval.high < np.inf else low + FEW * (1 + (low < 0))
    near = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    half_open = -np.inf < interval.low and interval.high == np.inf
    return near | st.just(FAR[option.kind.name]) if half_open else near


def phrases(ids: Drawn) -> st.SearchStrategy[list[int]]:
    return st.lists(ids, min_size=1, max_size=2)


OF_KIND: dict[str, Callable[[Drawn, int], Drawn]] = {  # from a strategy of ids, and how many there must be
    "flag": lambda ids, least: st.booleans(),
    "id": lambda ids, least: ids,
    "ids": lambda ids, least: st.lists(ids, min_size=least, max_size=12),
    "id or ids": lambda ids, least: ids,
    "phrases": lambda ids, least: st.lists(phrases(ids), min_size=least, max_size=3),
    "prompts": lambda ids, least: phrases(ids),
    "names": lambda ids, least: st.permutations(SAMPLERS),
    "logit bias": lambda ids, least: st.dictionaries(ids, st.floats(-9, 9) | st.just(-np.inf), max_size=12),
    "sequence bias": lambda ids, least: st.dictionaries(phrases(ids).map(tuple), st.floats(-9, 9), max_size=3),
    "decay": lambda ids, least: st.tuples(st.integers(0, 3), st.floats(0.5, 2)),
    "watermarking": lambda ids, least: st.sampled_from(
        [{}, {"seeding_scheme": "selfhash", "context_width": 2}, {"ngram_len": 3, "keys": [5, 6, 7]}]
    ),
}


# ---- what goes together --------------------------------------------------------------------------------------------


def asked_for(options: Mapping[str, Any]) -> list[Method]:
    """The methods that options ask for."""
    return [method for method in EVERY if options.keys() & set(method.askers)]


def stating(name: str) -> Method:
    """The method that states an option."""
    return next(method for method in EVERY if name in {one.name for one in method.options})


def possible(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that a statement rules out: by what they need or exclude, and by its own check."""
    left = dict(options)
    while ruled_out := next(impossible(left), None):
        del left[ruled_out]
    return left


def impossible(options: Mapping[str, Any]) -> Iterator[str]:
    """The options that can't be beside the others."""
    acting = asked_for({name: value for name, value in options.items() if value != DEFAULTS[name]})
    said = {name for name, value in options.items() if value != DEFAULTS[name] or methods.option(name).means_off(value)}
    for name in options:
        needed = methods.option(name).needs
        if needed and not said & set(needed):
            yield name
        if name == "min_tokens_to_keep" and not any(method.keeps for method in acting):
            yield name
    for method in acting:
        yield from (name for name in method.excludes if name in options)
        if method.check is not None:
            try:
                method.check(unchecked(options))
            except ValueError as error:
                other = re.search("can't be combined with (\\w+)", str(error))
                yield other[1] if other else next(name for name in method.askers if name in options)


def unchecked(options: Mapping[str, Any]) -> Options:
    """Options as they are before anything is asked of them."""
    made = object.__new__(Options)
    for name, value in (DEFAULTS | dict(options)).items():
        object.__setattr__(made, name, value)
    object.__setattr__(made, "given", frozenset(name for name, value in options.items() if value != DEFAULTS[name]))
    return made


def beside(name: str) -> dict[str, Any]:
    """What must be given beside an option so that it acts: what it needs, or what its search is tried with."""
    method = stating(name)
    trial = {} if method.name == "token by token" else dict(next(iter(method.trials.values()), {}))
    if method.run is None or method.name == "token by token":
        trial["do_sample"] = True
    for needed in methods.option(name).needs[:1]:
        trial |= {needed: an_example(needed)}
    if name == "min_tokens_to_keep":
        trial |= next({one.name: an_example(one.name)} for one in EVERY if one.keeps)
    if name == "cuda_multiprocessors":
        trial["rng"] = "cuda"
    return {one: value for one, value in trial.items() if one != name}


def maker(name: str, model: Any) -> Any:
    """What a trial leaves open: what makes the steppers that draft, here of a model itself."""
    return (lambda layers: first_layers(model, layers).start()) if name == "first_layers" else model.start


def an_example(name: str) -> Any:
    """A value that some statement gives an option to show it."""
    for method in EVERY:
        for shown in (
            *method.trials.values(),
            *(page.example for page in method.documentation),
            *(c.settings for c in method.costs),
        ):
            if name in shown:
                return shown[name]
    raise AssertionError(f"no statement shows {name}")

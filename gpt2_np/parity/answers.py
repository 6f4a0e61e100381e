"""The comparison of another implementation's numbers with a bundle's: the largest difference, its place and its
size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ..system.files import JSONObject, read_json, read_object
from . import vectors
from .checks import Check

Array = np.ndarray
NAME, DECODERS, TEXTS = "answers.json", "decoders.json", "texts.json"
LEFT_OUT: Final = "left out"
SCORES, BEAMS = 1e-5, 1e-4  # how far a processor's score and a beam's may be off: in proportion above 1; as it is


def apart(theirs: Array, truth: Array, *, proportional: bool = False) -> tuple[float, tuple[int, ...], str]:
    """(the largest difference of two arrays of one shape, its place, a note where it is infinite).

    Where one side is infinite or NaN and the other isn't just so, the difference is infinite: −1e9 is no −∞, and the
    note says what stands there. With `proportional` each difference is a share of the truth where that is above 1.
    """
    one, other = np.asarray(theirs, np.float64), np.asarray(truth, np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(one - other)
    if proportional:
        gap = gap / np.maximum(1, np.abs(np.where(np.isfinite(other), other, 1)))
    gap = np.where(one == other, 0.0, np.where(np.isnan(gap), np.inf, gap))
    if not gap.size:
        return 0.0, (), ""
    place = tuple(int(index) for index in np.unravel_index(int(np.argmax(gap)), gap.shape))
    if np.isfinite(gap[place]):
        return float(gap[place]), place, ""
    others = int(np.isinf(gap).sum()) - 1
    also = f", and so at {others} more place{'s' if others > 1 else ''}" if others else ""
    return float(gap[place]), place, f"{_number(one[place])} where {_number(other[place])} was expected{also}"


def _number(value: float) -> str:
    return {np.inf: "+inf", -np.inf: "-inf"}.get(value, f"{value:.6g}")


def refuse_nan(path: Path, tensors: Mapping[str, Array]) -> None:
    """``ValueError`` for truths that are NaN or +∞, which no model computes: a damaged bundle."""
    for name, tensor in tensors.items():
        if np.isnan(tensor).any() or np.isposinf(tensor).any():
            raise ValueError(f"{path}: {name} must hold numbers or -inf, got NaN or +inf")


def compare(name: str, theirs: Array, truth: Array, tolerance: float) -> Check:
    """One tensor against the truth, to a share of its largest entry; both may hold −inf, in the same places."""
    if theirs.shape != truth.shape:
        raise ValueError(f"{name} must have the shape {truth.shape}, got {theirs.shape}")
    largest, place, note = apart(theirs, truth)
    scale = float(np.abs(truth[np.isfinite(truth)]).max(initial=1.0))
    return Check(name, "same" if largest <= tolerance * scale else "mismatch", largest, str(list(place)), note=note)


def scores(name: str, case: JSONObject, theirs: Any, tolerance: float) -> Check:
    """One processor's (V,) scores, each by itself, in proportion where it is above 1."""
    truth, given = vectors.numbers(case["out"]), vectors.numbers(theirs)
    if given.shape != truth.shape:
        raise ValueError(f"scores must be {len(truth)} numbers, got {len(given)}")
    far, place, note = apart(given, truth, proportional=True)
    good = far <= max(SCORES, tolerance)
    if not good:
        note = (
            f"{note}{': ' if note else ''}{theirs} where {case['out']} was expected for arguments {case['arguments']}"
        )
    return Check(name, "same" if good else "mismatch", far, str(list(place)), note=note)


def ids(name: str, theirs: Any, truth: list[int]) -> Check:
    """One list of ids, which must be the very same; `where` is the first that differs."""
    if not isinstance(theirs, list):
        raise ValueError(f"ids must be a list, got {theirs!r}")
    if theirs == truth:
        return Check(name, "same")
    pairs = zip(theirs, truth, strict=False)
    first = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(theirs), len(truth)))
    return Check(name, "mismatch", where=f"token {first}", note=f"{theirs} where {truth} was expected")


def beams(name: str, case: JSONObject, theirs: Any, tolerance: float) -> Check:
    """Compare the results of a beam search on the table: ids exactly, scores nearly."""
    truth = case["out"]
    same = [one["ids"] for one in theirs] == [one["ids"] for one in truth]
    given = np.array([one["score"] for one in theirs], np.float64)
    far: float = 0.0
    place: tuple[int, ...] = ()
    if len(given) == len(truth):
        far, place, _ = apart(given, np.array([one["score"] for one in truth], np.float64))
    good = same and far <= max(BEAMS, tolerance)
    note = "" if good else f"{theirs} where {truth} was expected; see its trace"
    return Check(name, "same" if good else "mismatch", far, f"beam {place[0]}" if place else "", note=note)


def check(bundle: Path, about: JSONObject, theirs: Path, tolerance: float) -> Iterator[Check]:
    """Tokens, processors, beams and texts in the bundle's order; one that is null, or not there, is left out."""
    decoders = read_json(bundle / DECODERS)
    if not isinstance(decoders, dict) or not all(
        isinstance(decoders.get(key), list) for key in ("processors", "beams")
    ):
        raise ValueError(f"{bundle / DECODERS} must hold lists of processors and beams")
    asked = {"tokens": about["tokens"], "decoders": decoders["processors"], "beams": decoders["beams"], "texts": []}
    if (bundle / TEXTS).is_file():
        texts = read_json(bundle / TEXTS)
        if not isinstance(texts, dict) or not isinstance(texts.get("texts"), list):
            raise ValueError(f"{bundle / TEXTS} must hold a list of texts")
        asked["texts"] = texts["texts"]
    named = {key: _names(bundle, key, cases) for key, cases in asked.items()}
    path = theirs / NAME
    answered = read_object(path) if path.is_file() else {}
    for key, cases in asked.items():
        found = answered.get(key, [None] * len(cases))
        if not isinstance(found, list) or len(found) != len(cases):
            count = len(found) if isinstance(found, list) else repr(found)
            raise ValueError(
                f"{path}: {key} must have one answer to each of the bundle's {len(cases)}, in its order (null "
                f"leaves one out), or be left out; got {count}"
            )
        for number, (name, case, one) in enumerate(zip(named[key], cases, found, strict=True)):
            if one is None:
                yield Check(name, LEFT_OUT)
                continue
            if not FORMS[key].holds(one):
                raise ValueError(f"{path} can't be read: {key} {number} must be {FORMS[key].what}, got {one!r:.100}")
            try:
                yield _judged(key, name, case, one, tolerance)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path} can't be read: {key} {number}: {error}") from None


class Form(NamedTuple):
    """What an answer of one kind must be, in words, and the test for it."""

    what: str
    holds: Callable[[Any], bool]


def whole(one: Any) -> bool:
    """Tell whether a JSON value is a whole number."""
    return type(one) is int


def real(one: Any) -> bool:
    """Tell whether a JSON value is a number that a float can hold."""
    return type(one) is float or (type(one) is int and abs(one) < 2**1000)


def hypothesis(one: Any) -> bool:
    """Tell whether a JSON value is what a beam search returns."""
    return isinstance(one, dict) and IDS.holds(one.get("ids")) and real(one.get("score"))


IDS = Form("a list of ids", lambda one: isinstance(one, list) and all(map(whole, one)))
FORMS = {
    "tokens": IDS,
    "texts": IDS,
    "decoders": Form(
        "a list of scores, numbers or null",
        lambda one: isinstance(one, list) and all(score is None or real(score) for score in one),
    ),
    "beams": Form(
        'a list of objects with "ids" and a "score"', lambda one: isinstance(one, list) and all(map(hypothesis, one))
    ),
}


def _judged(key: str, name: str, case: JSONObject, one: Any, tolerance: float) -> Check:
    if key == "decoders":
        return scores(name, case, one, tolerance)
    return beams(name, case, one, tolerance) if key == "beams" else ids(name, one, case["ids"])


def _names(bundle: Path, key: str, cases: list[Any]) -> list[str]:
    """Return what each case is called. ``ValueError`` for one that lacks what it is judged by."""
    needed = {"tokens": ("strategy", "prompt", "ids"), "texts": ("text", "ids"), "beams": ("name", "out")}
    for number, case in enumerate(cases):
        for field in needed.get(key, ("name", "arguments", "out")):
            if not isinstance(case, dict) or field not in case:
                raise ValueError(f"{bundle}: {key} {number} must be an object with {field}, got {case!r:.80}")
        truth = case["out" if key in ("decoders", "beams") else "ids"]
        if not FORMS[key].holds(truth):
            raise ValueError(f"{bundle}: the answer to {key} {number} must be {FORMS[key].what}, got {truth!r:.80}")
    called = {
        "tokens": lambda case: f"tokens: {case['strategy']}, prompt {case['prompt']}",
        "decoders": lambda case: f"processor: {case['name']}",
        "beams": lambda case: f"beams: {case['name']}",
        "texts": lambda case: f"text: {case['text']!r:.50}",
    }
    return [called[key](case) for case in cases]

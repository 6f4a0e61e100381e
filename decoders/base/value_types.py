"""The types of option values: the test of each, its name in messages, its annotation, the token ids it holds.

NumPy's scalars and arrays are converted to Python's (`plain`); values of any other type are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

MOST = int(np.finfo(np.float64).max)


class ValueType(NamedTuple):
    """A type of option value: a test, a name for messages, an annotation, and the token ids that a value holds."""

    name: str
    annotation: str
    phrase: str
    accepts: Callable[[object], bool]
    ids: Callable[[Any], Iterable[int]] = lambda value: ()


def plain(value: Any) -> Any:
    """Convert NumPy's scalars and arrays, also inside lists, tuples and mappings, to Python's numbers and lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if type(value) is dict:
        return {plain(key): plain(one) for key, one in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a number that float64 can hold, and not NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        return False
    return isinstance(value, float) or abs(value) <= MOST


def is_id(value: object) -> TypeGuard[int]:
    """Tell whether a value can be a token's id."""
    return is_whole(value) and value >= 0


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Tell whether a value is a list or a tuple."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def is_ids(value: object) -> TypeGuard[Sequence[int]]:
    """Tell whether a value is a list of ids."""
    return is_list(value) and all(is_id(one) for one in value)


def is_logit_bias(value: object) -> bool:
    """Tell whether a value maps ids to numbers."""
    return isinstance(value, Mapping) and all(is_id(token) and is_number(bias) for token, bias in value.items())


def pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return the (sequence, bias) pairs of a mapping, or of a list of such pairs."""
    return list(value.items() if isinstance(value, Mapping) else value)


def is_sequence_bias(value: object) -> bool:
    """Tell whether a value maps sequences of ids, not empty, to numbers."""
    if not isinstance(value, Mapping) and not (is_list(value) and all(is_list(one) and len(one) == 2 for one in value)):
        return False
    return all(is_ids(sequence) and len(sequence) > 0 and is_number(bias) for sequence, bias in pairs(value))


def is_decay(value: object) -> bool:
    """Tell whether a value is a start and a factor."""
    return bool(
        is_list(value)
        and len(value) == 2
        and is_whole(value[0])
        and is_number(value[1])
        and 0 < value[1] < float("inf")
    )


def flat(value: Any) -> list[Any]:
    """Return the ids in nested lists of any depth."""
    return [token for one in value for token in (flat(one) if is_list(one) else [one])]


def is_long(value: object) -> bool:
    """Tell whether a value is a whole number that int64 can hold."""
    return is_whole(value) and -(2**63) <= value < 2**63


def is_seed(value: object) -> bool:
    """Tell whether ``torch.manual_seed`` takes a value."""
    return is_whole(value) and -(2**63) <= value < 2**64


def one_or_more(value: Any) -> list[int]:
    """Return a single id as a list of one, and a list as it is."""
    return [value] if isinstance(value, int) else list(value)


FLAG = ValueType("flag", "bool", "True or False", lambda value: isinstance(value, bool))
WHOLE = ValueType("whole", "int", "a whole number", is_whole)
NUMBER = ValueType("number", "float", "a number", is_number)
NAME = ValueType("name", "str", "a name", lambda value: isinstance(value, str))
CALLABLE = ValueType("callable", "Callable[..., Any]", "a callable", callable)
NUMBERS = ValueType("numbers", "Sequence[float]", "a list of numbers", lambda v: is_list(v) and all(map(is_number, v)))
NAMES = ValueType("names", "Sequence[str]", "a list of names", is_list)
ANYTHING = ValueType("anything", "Any", "anything", lambda value: True)
ID = ValueType("id", "int", "an id", is_id, lambda value: [value])
IDS = ValueType("ids", "Sequence[int]", "a list of ids", is_ids, list)
ID_OR_IDS = ValueType(
    "id or ids", "int | Sequence[int]", "an id or a list of ids", lambda v: is_id(v) or is_ids(v), one_or_more
)
PHRASES = ValueType(
    "phrases", "Sequence[Sequence[int]]", "a list of lists of ids", lambda v: is_list(v) and all(map(is_ids, v)), flat
)
PROMPTS = ValueType(
    "prompts",
    "Sequence[int] | Sequence[Sequence[int]]",
    "a list of ids, or one for each prompt",
    lambda value: is_ids(value) or (is_list(value) and all(map(is_ids, value))),
    flat,
)
LOGIT_BIAS = ValueType("logit bias", "Mapping[int, float]", "a mapping of ids to numbers", is_logit_bias, list)
SEQUENCE_BIAS = ValueType(
    "sequence bias",
    "Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]]",
    "a mapping of tuples of ids to numbers, or a list of such pairs",
    is_sequence_bias,
    lambda value: [token for sequence, _ in pairs(value) for token in sequence],
)
SEED = ValueType("whole", "int", "a whole number from -2**63 to 2**64 - 1", is_seed)
DECAY = ValueType("decay", "tuple[int, float]", "a pair: a whole number and a number above 0", is_decay)

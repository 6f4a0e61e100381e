"""The statement of a decoding method: its options, their conditions, its constructor, its documentation.

A method is stated once, beside its code. Everything else is derived from the statement: the fields of `Options` and
their checks, the command line, the documentation page and its table of costs, the conformance vectors, the tests'
tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .errors import require
from .value_types import NUMBER, WHOLE, ValueType

Only = Literal["", "sampling", "beams"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Option(NamedTuple):
    """One option: its value type, default, range and help.

    ``default`` None means that it isn't given; its method then uses ``otherwise``. ``interval`` is a range such as "(0,
    1]", ``choices`` are the only allowed values. One of ``needs`` must be given too, ``only`` says when the option acts
    at all, ``converted`` maps a checked value to the stored one. ``off`` are values by which an engine says that the
    option is unused: they count as not given. ``hints`` maps invalid values to advice. ``in_text`` is the annotation
    where text may replace ids, for callers who have a tokenizer. On the command line the option is listed under
    ``group`` (without one it has no flag), as ``flag`` (by default its own name), which may be ``repeatable``, with
    ``metavar`` as the placeholder of its value.
    """

    name: str
    kind: ValueType
    default: Any = None
    interval: str = ""
    choices: tuple[Any, ...] = ()
    otherwise: Any = None
    needs: tuple[str, ...] = ()
    only: Only = ""
    may_be_empty: bool = True
    converted: Callable[[Any], Any] | None = None
    off: tuple[Any, ...] = ()
    hints: Mapping[Any, str] = NOTHING
    help: str = ""
    group: str = ""
    flag: str = ""
    metavar: str = ""
    repeatable: bool = False
    in_text: str = ""

    def means_off(self, value: Any, interval: str = "") -> bool:
        """Tell whether a value means that the option isn't used; `interval` holds such values of another engine."""
        comparable = type(value) in (bool, int, float, str, list)
        for one in self.off if comparable else ():
            if isinstance(one, bool) == isinstance(value, bool) and value == one:
                return True
        return bool(interval) and self.kind.accepts(value) and Interval.parse(interval).holds(value)

    def check(self, value: Any, interval: str = "") -> None:
        """Raise ``ValueError``, in one line, for a value of another type or outside the range (or another engine's
        range).
        """
        try:
            self._check(value, interval)
        except ValueError as error:
            hint = self.hints.get(value) if isinstance(value, (int, float)) else None
            if hint is None:
                raise
            raise ValueError(f"{error}; {hint}") from None

    def kept(self, value: Any) -> Any:
        """Return the stored form of a checked value: a float if it exceeds NumPy's integers."""
        if self.kind is NUMBER and isinstance(value, int) and abs(value) > 2**53:
            value = float(value)
        return value if self.converted is None else self.converted(value)

    def _check(self, value: Any, other: str) -> None:
        interval = Interval.parse(other or self.interval) if other or self.interval else None
        if self.choices:
            fits = self.kind.accepts(value) and value in self.choices
            require(fits, f"{self.name} must be {alternatives(self.choices)}", value)
        elif self.kind is WHOLE and interval is not None:
            fits = self.kind.accepts(value) and value >= interval.low
            require(fits, f"{self.name} must be a whole number of at least {interval.low:g}", value)
            require(value <= interval.high, f"{self.name} must be at most {interval.high:g}", value)
        else:
            require(self.kind.accepts(value), f"{self.name} must be {self.kind.phrase}", value)
            if interval is not None:
                require(interval.holds(value), f"{self.name} must be {interval.phrase}", value)
        if not self.may_be_empty:
            full = len(value) > 0 and all(one if isinstance(one, Sequence) else True for one in value)
            require(full, f"{self.name} must not be empty", value)

    @property
    def annotation(self) -> str:
        """The annotation of its values, for type checkers."""
        kind = f"Literal[{', '.join(map(repr, self.choices))}]" if self.choices else self.kind.annotation
        return f"{kind} | None" if self.default is None else kind

    @property
    def keyword(self) -> str:
        """The annotation for callers who have a tokenizer."""
        return f"{self.in_text} | None" if self.in_text else self.annotation


class Interval(NamedTuple):
    """A range of numbers, each end open or closed: "(0, 1]", "[1, inf)"."""

    low: float
    high: float
    open_low: bool
    open_high: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Return the range that a text describes."""
        low, high = text[1:-1].split(",")
        return cls(float(low), float(high), text[0] == "(", text[-1] == ")", text)

    def holds(self, value: float) -> bool:
        """Tell whether a number lies in it."""
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    @property
    def phrase(self) -> str:
        """The rule in words: "above 0", "at least 1", "in (0, 1]", "finite"."""
        if self.high < float("inf"):
            return f"in {self.text}"
        if self.low == -float("inf"):
            return "finite"
        return f"{'above' if self.open_low else 'at least'} {self.low:g}"


def alternatives(choices: Sequence[Any]) -> str:
    """List some values in words: "1 or 2", "True, False or 'never'"."""
    *first, last = map(repr, choices)
    return f"{', '.join(first)} or {last}" if first else last


class Documentation(NamedTuple):
    """A method's section on the documentation page: what it does, its formula, source, when to use it, an example.

    ``example`` holds the options of the illustrated call; ``random`` says that the call samples. Texts in place of ids
    are encoded.
    """

    title: str
    what: str
    formula: str
    source: str
    when: str
    example: Mapping[str, Any]
    random: bool = False
    prompt: str = "Once upon a time there was a king who had a"
    picture: bool = True


class Cost(NamedTuple):
    """A row of the table of costs: options that show it, and the reason if it takes more than 1 ms."""

    settings: Mapping[str, Any]
    title: str = ""
    reason: str = ""


class Vectors(NamedTuple):
    """Conformance vectors: their name in a bundle, the processor's constructor, and the arguments of each case."""

    name: str
    build: Callable[..., Any]
    cases: tuple[list[Any], ...]


class Place(NamedTuple):
    """The context of a processor: the prompt's number and length, the longest text, the end-of-text ids.

    ``max_length`` counts the prompt. ``keep`` is how many tokens a sampler must leave. ``taken`` is a list that diverse
    beam search fills: the choices of earlier groups in the current step.
    """

    prompt: int
    prompt_length: int
    max_length: int
    eos: tuple[int, ...]
    keep: int
    taken: Sequence[int]


class Method(NamedTuple):
    """One method: a processor (with ``make``), a search (with ``run``) or a condition that ends a text (with ``stop``).

    ``make(place, **values)`` returns the processor, or None if the values change nothing; ``run(task, **values)``
    returns an iterator of tokens if the method ``streams``, else completions; ``stop(**values)`` returns a `Stopping`.
    The values are those of its own options, except the ``unread`` ones, which only select it, and of the options that
    it ``reads``. A method acts if one of ``asked`` is given (by default its first option).

    ``only`` says when it acts; ``excludes`` lists what can't be combined with it; ``takes`` lists options that it uses
    although they would otherwise act only elsewhere. ``check(options)`` makes checks that a table can't express. A
    search that ``feeds_last`` also feeds the last token, so that the context holds one less. ``with_profiles``
    says that another engine's profile may be combined with it.

    For a processor: it ``keeps`` at least `min_tokens_to_keep` tokens; it ``forbids`` tokens whatever the model says;
    it ``revives`` tokens that were forbidden before it; it ``forces`` one if none was left; it ``has_past``, so that it
    must see a text grow; it acts ``last``, whatever the order.
    """

    name: str
    options: tuple[Option, ...]
    make: Callable[..., Any] | None = None
    run: Callable[..., Any] | None = None
    stop: Callable[..., Any] | None = None
    streams: bool = False
    feeds_last: bool = False
    with_profiles: bool = False
    asked: tuple[str, ...] | None = None
    reads: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    only: Only = ""
    excludes: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    check: Callable[[Any], None] | None = None
    keeps: bool = False
    forbids: bool = False
    revives: bool = False
    forces: bool = False
    has_past: bool = False
    last: bool = False
    documentation: tuple[Documentation, ...] = ()
    costs: tuple[Cost, ...] = ()
    vectors: tuple[Vectors, ...] = ()
    trials: Mapping[str, Mapping[str, Any]] = NOTHING

    @property
    def askers(self) -> tuple[str, ...]:
        """The options that select it."""
        return (self.options[0].name,) if self.asked is None else self.asked

    @property
    def concerned_by(self) -> tuple[str, ...]:
        """The options that select it, and the numeric ones among those that it states."""
        numbers = [option.name for option in self.options if option.kind is NUMBER]
        return tuple(dict.fromkeys([*self.askers, *numbers]))

    def option(self, name: str) -> Option:
        """Return its option of this name."""
        return next(option for option in self.options if option.name == name)


class Profile(NamedTuple):
    """Another engine's conventions: its order, its defaults when sampling, and its own variants of some methods.

    Methods that are not in ``order`` don't exist there, nor do the options that it ``lacks``. ``makes`` are its
    variants, each like a method's ``make``; ``ranges`` are its own ranges of options; ``off`` are ranges that mean that
    an option isn't used; ``keeps`` lists the methods that respect min_tokens_to_keep there.
    """

    name: str
    order: tuple[str, ...]
    makes: Mapping[str, Callable[..., Any]]
    defaults: Mapping[str, Any] = NOTHING
    penalty_last_n: int | None = None
    lacks: tuple[str, ...] = ()
    ranges: Mapping[str, str] = NOTHING
    off: Mapping[str, str] = NOTHING
    keeps: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()
    vectors: tuple[Vectors, ...] = ()

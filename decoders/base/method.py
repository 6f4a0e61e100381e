"""What a method of decoding says of itself: its options, what it needs and excludes, how it is made, its page.

A method is stated once, beside its code. Everything else is derived from the statement: the fields of `Options` and
what they are checked for, the command line, the page about decoding and its table of costs, the conformance vectors,
the tests' tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .errors import require
from .kinds import NUMBER, WHOLE, Kind

Only = Literal["", "sampling", "beams"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Option(NamedTuple):
    """One option: its kind, default, range and help.

    ``default`` None means that it isn't given; ``otherwise`` is then the value that its method uses. ``within`` is
    a range such as "(0, 1]", ``choices`` are the only values there are. ``needs`` are options of which one must be
    given too, ``only`` says when it acts at all, ``converted`` makes of a checked value what is kept. ``off`` are
    values by which an engine says that it is not used: such a value counts as not given. ``hints`` tell of values
    that can't be what to do instead. ``in_text`` is how a type checker writes the values where text may stand for
    ids, because whoever calls has a tokenizer. On the command line it is listed under ``group`` (none: it has no
    flag), as ``flag`` (its own name unless told), which may be ``repeatable``, with ``metavar`` in the place of a
    value.
    """

    name: str
    kind: Kind
    default: Any = None
    within: str = ""
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
        """Whether a value says that the option isn't used; `interval` holds those of another engine."""
        comparable = type(value) in (bool, int, float, str, list)
        for one in self.off if comparable else ():
            if isinstance(one, bool) == isinstance(value, bool) and value == one:
                return True
        return bool(interval) and self.kind.accepts(value) and Interval.parse(interval).holds(value)

    def check(self, value: Any, within: str = "") -> None:
        """``ValueError``, in one line, for a value of another kind or outside the range (or another engine's)."""
        try:
            self._check(value, within)
        except ValueError as error:
            hint = self.hints.get(value) if isinstance(value, (int, float)) else None
            if hint is None:
                raise
            raise ValueError(f"{error}; {hint}") from None

    def kept(self, value: Any) -> Any:
        """What is kept of a checked value: a float beyond NumPy's integers, where arithmetic would be Python's."""
        if self.kind is NUMBER and isinstance(value, int) and abs(value) > 2**53:
            value = float(value)
        return value if self.converted is None else self.converted(value)

    def _check(self, value: Any, within: str) -> None:
        interval = Interval.parse(within or self.within) if within or self.within else None
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
        """How a type checker writes the values it takes."""
        kind = f"Literal[{', '.join(map(repr, self.choices))}]" if self.choices else self.kind.annotation
        return f"{kind} | None" if self.default is None else kind

    @property
    def keyword(self) -> str:
        """The same for callers who have a tokenizer."""
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
        """The range that a text says."""
        low, high = text[1:-1].split(",")
        return cls(float(low), float(high), text[0] == "(", text[-1] == ")", text)

    def holds(self, value: float) -> bool:
        """Whether a number is within it."""
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
    """Some values in words: "1 or 2", "True, False or 'never'"."""
    *first, last = map(repr, choices)
    return f"{', '.join(first)} or {last}" if first else last


class Page(NamedTuple):
    """What the page about decoding says of a method: what it does, its formula, source, when to use it, an example.

    ``example`` are the options of the call that its picture shows, ``random`` says that the call draws. A text in place
    of ids is encoded for it.
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
    """A case of the table of costs: the options that show it, and why it takes more than 1 ms, where it does."""

    settings: Mapping[str, Any]
    title: str = ""
    reason: str = ""


class Vectors(NamedTuple):
    """Conformance vectors: their name in a bundle, what builds the processor, and the arguments of each case."""

    name: str
    build: Callable[..., Any]
    cases: tuple[list[Any], ...]


class Place(NamedTuple):
    """Where a processor acts: the prompt's number and length, the longest text, the end-of-texts.

    ``max_length`` counts the prompt. ``keep`` is how many tokens a sampler must leave. ``taken`` is a list that diverse
    beam search keeps: what earlier groups chose in the step under way.
    """

    prompt: int
    prompt_length: int
    max_length: int
    eos: tuple[int, ...]
    keep: int
    taken: Sequence[int]


class Method(NamedTuple):
    """One method: a processor (which has ``make``), a search (which has ``run``) or what ends a text (``stop``).

    ``make(place, **values)`` gives the processor, or None where the values change nothing; ``run(task, **values)``
    writes: an iterator of tokens where it ``streams``, else completions; ``stop(**values)`` gives a `Stopping`.
    The values are those of its own options, but for the ``unread``, which only ask for it, and of those that it
    ``reads``. A method acts when one of ``asked`` is given (its first option, unless told).

    ``only`` says when it acts; ``excludes`` what can't be given beside it; ``takes`` are options that it uses although
    they would otherwise act only elsewhere. ``check(options)`` refuses what a table can't say. A search that
    ``feeds_last`` feeds the last token too, so that the context holds one less. ``with_profiles``
    says that another engine's profile may be given beside it.

    Of a processor: it ``keeps`` at least `min_tokens_to_keep` tokens; ``forbids`` tokens whatever the model says;
    ``revives`` tokens that were forbidden before it; ``forces`` one where none was left; ``has_past`` of its own, so
    that it must see a text grow; ``last`` of all it acts, whatever the order.
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
    pages: tuple[Page, ...] = ()
    costs: tuple[Cost, ...] = ()
    vectors: tuple[Vectors, ...] = ()
    trials: Mapping[str, Mapping[str, Any]] = NOTHING

    @property
    def askers(self) -> tuple[str, ...]:
        """The options that ask for it."""
        return (self.options[0].name,) if self.asked is None else self.asked

    @property
    def concerned_by(self) -> tuple[str, ...]:
        """The options that ask for it, and the numbers among those that it states."""
        numbers = [option.name for option in self.options if option.kind is NUMBER]
        return tuple(dict.fromkeys([*self.askers, *numbers]))

    def option(self, name: str) -> Option:
        """Its option of this name."""
        return next(option for option in self.options if option.name == name)


class Profile(NamedTuple):
    """Another engine's habits: its order, its defaults when sampling, and its own variants of some methods.

    What is not in ``order`` it hasn't got, nor the options that it ``lacks``. ``makes`` are its variants, each as a
    method's ``make``; ``ranges`` are its own ranges of options; ``off`` the ranges by which it says that an option
    isn't used; ``keeps`` which methods heed min_tokens_to_keep there.
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

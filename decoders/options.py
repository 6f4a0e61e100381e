"""`Options`: what a caller may ask of decoding, by transformers' names, checked before work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from . import methods
from .base.errors import require, suggestion
from .base.given import excluded
from .base.value_types import one_or_more, plain
from .fields import Fields
from .processors.order import rank

if TYPE_CHECKING:
    from .base.method import Method, Option, Profile

DEFAULTS = {field.name: field.default for field in fields(Fields)}


class Options(Fields):
    """The options of `generate`, with GenerationConfig's names and meaning; no option is enabled by default.

    Unlike there, ``top_k`` is off unless given, and an option that the chosen method would ignore is an error. So is
    any value outside its range: ``ValueError``, in one line, with the rule and the value. A value that means "off",
    there or in the engine of a ``profile``, counts as not given: ``top_k=0``, ``top_p=1.0``, ``early_stopping=False``.

    Besides GenerationConfig's: ``seed`` and ``rng`` choose torch's random stream ("cpu", or "cuda" with
    ``cuda_multiprocessors``); ``uniforms`` gives the draws as data instead; ``presence_penalty`` and
    ``frequency_penalty`` are OpenAI's; ``top_logprobs`` asks for the likeliest alternatives of each token. llama.cpp's
    are ``top_n_sigma``, ``xtc_…``, ``dynatemp_…``, ``mirostat…``, ``dry_…`` and ``penalty_last_n``. ``order`` and
    ``profile`` change the order in which processors act (see `processors.order`); a profile fills in its engine's
    defaults. ``unconditional`` makes the second stepper that ``guidance_scale`` needs, ``assistant_model`` the one that
    drafts. ``constraint`` is an automaton: only texts that it accepts are written (see `processors.constraint`).

    Examples:
        >>> from decoders import Options
        >>> sorted(Options(do_sample=True, top_k=0, top_p=0.9).given)
        ['do_sample', 'top_p']
        >>> Options(top_k=5)
        Traceback (most recent call last):
            ...
        ValueError: top_k acts only when sampling; give do_sample too, or leave top_k out
    """

    given: frozenset[str]  # the options whose value isn't their default, nor means "off"
    off: frozenset[str]  # those whose value means "off"

    def __post_init__(self) -> None:
        given = []
        for name, default in DEFAULTS.items():
            value = plain(getattr(self, name))
            if value is default:
                continue
            require(value is not None, f"{name} must have a value", None)
            self._set(name, value)
            if type(value) is not type(default) or value != default:
                given.append(name)
        self._set("given", frozenset(given))
        self._set("off", frozenset())
        check(self)

    def __repr__(self) -> str:
        shown = [name for name in DEFAULTS if name in self.given | self.off]
        return f"Options({', '.join(f'{name}={getattr(self, name)!r:.80}' for name in shown)})"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text."""
        return () if self.eos_token_id is None else tuple(one_or_more(self.eos_token_id))

    def most(self, prompt_length: int) -> int:
        """Return how many new tokens may at most follow a prompt of this length.

        As in transformers, ``max_length`` counts the prompt, and ``max_new_tokens`` goes before it; ``ValueError``
        where it leaves no room.
        """
        if self.max_length is None or "max_new_tokens" in self.given:
            return self.max_new_tokens
        rule = f"max_length counts the prompt, so it must be above its length ({prompt_length})"
        require(self.max_length > prompt_length, rule, self.max_length)
        return self.max_length - prompt_length

    @property
    def acting(self) -> list[Method]:
        """The methods that the options select, in the list's order."""
        return list(methods.asked_for(self.given))

    @property
    def search(self) -> Method:
        """The search that writes the texts."""
        return next((one for one in self.acting if one.run is not None), methods.method("token by token"))

    @property
    def writer(self) -> Method:
        """The method that writes token by token: the search itself, or the one that it takes its texts from."""
        return next((one for one in self.acting if one.streams), methods.method("token by token"))

    @property
    def streams(self) -> bool:
        """Whether the text is known token by token: no search, and only one text."""
        return self.num_return_sequences == 1 and self.search.streams

    def values(self, method: Method) -> dict[str, Any]:
        """Return the values that a method is made or run with: those of its options and of the options that it
        reads.
        """
        names = [one.name for one in method.options if one.name not in method.unread] + list(method.reads)
        return {name: self.value(name) for name in names}

    def value(self, name: str) -> Any:
        """Return an option's value; if it isn't given, the value that its method uses otherwise."""
        value = getattr(self, name)
        return methods.option(name).otherwise if value is None else value

    @classmethod
    def from_names(cls, names: Mapping[str, Any]) -> Options:
        """Options from a mapping; an unknown name is a ``ValueError`` that suggests the nearest."""
        for name in names:
            if name not in DEFAULTS:
                raise ValueError(f"there is no option {name!r}{suggestion(name, DEFAULTS)}")
        if names.get("max_new_tokens") is not None and names.get("max_length") is not None:
            # Given explicitly, it takes precedence even at its default value, which an object can't tell apart.
            cls(max_length=names["max_length"])
            names = {name: value for name, value in names.items() if name != "max_length"}
        return cls(**names)

    def check_vocabulary(self, vocabulary: int) -> None:
        """Raise ``ValueError`` if an option names a token outside the vocabulary, or asks for more than it holds."""
        rule = f"num_beams must be at most the vocabulary's size ({vocabulary})"
        require(self.num_beams == 1 or self.num_beams <= vocabulary, rule, self.num_beams)
        for name in self.given:
            for token in methods.option(name).kind.ids(getattr(self, name)):
                require(0 <= token < vocabulary, f"{name} must hold ids between 0 and {vocabulary - 1}", token)


# ---- checks of combinations --------------------------------------------------------------------------------------


def check(o: Options) -> None:
    """Raise ``ValueError``, in one line, for the first invalid value or combination."""
    profile = None if o.profile is None else methods.profile(o.profile)
    ranges = {} if profile is None else profile.ranges
    switch_off(o, {} if profile is None else profile.off)
    for option in stated(o):
        option.check(getattr(o, option.name), ranges.get(option.name, ""))
        o._set(option.name, option.kept(getattr(o, option.name)))
    if profile is not None:
        engine_has(o, profile)
        fill(o, profile)
    needs(o)
    taken = {name for method in (*o.acting, *methods.asked_for(o.off)) for name in method.takes}
    for option in stated(o):
        if option.name not in taken:
            acts(o, option.name)
    keeping(o, profile)
    for method in (*reversed(o.acting), methods.method("token by token")):
        if method.check is not None:
            method.check(o)
        if method.excludes:
            excluded(asker(o, method), o, *method.excludes)
    if o.order is not None:
        in_order(o, o.order)
    if profile is not None:
        has(o, profile)


def stated(o: Options) -> list[Option]:
    """Return the statements of the options that were given, in the order of the fields."""
    return [methods.option(name) for name in DEFAULTS if name in o.given]


def switch_off(o: Options, intervals: Mapping[str, str]) -> None:
    """Treat options whose value means "off" as not given; a profile doesn't fill these in."""
    off = {name for name in o.given if methods.option(name).means_off(getattr(o, name), intervals.get(name, ""))}
    for name in off:
        o._set(name, DEFAULTS[name])
    o._set("given", o.given - off)
    o._set("off", frozenset(off))


def asker(o: Options, method: Method) -> str:
    """Return the option that selects a method."""
    return next(name for name in method.askers if name in o.given)


def engine_has(o: Options, profile: Profile) -> None:
    """Refuse options that a profile's engine doesn't have; here no default of its own is among them yet."""
    for name in profile.lacks:
        if name in o.given:
            raise ValueError(f"profile {profile.name!r} has no {name}; leave one of the two out")


def fill(o: Options, profile: Profile) -> None:
    """Set a profile's defaults, as if they had been given."""
    filled: dict[str, Any] = {}
    if o.do_sample:
        kept = ("temperature",) if o.mirostat else tuple(profile.defaults)
        known = o.given | o.off
        filled = {name: profile.defaults[name] for name in kept if name in profile.defaults and name not in known}
    penalties = methods.option("penalty_last_n").needs
    if profile.penalty_last_n and o.penalty_last_n is None and not o.given.isdisjoint(penalties):
        filled["penalty_last_n"] = profile.penalty_last_n
    for name, value in filled.items():
        o._set(name, value)
    o._set("given", o.given.union(filled))


def needs(o: Options) -> None:
    """Refuse an option that only refines another one if that isn't given; switching it off is enough."""
    for option in stated(o):
        name, needed = option.name, option.needs
        if needed and (o.given | o.off).isdisjoint(needed):
            several = len(needed) > 1
            what = f"one of {', '.join(needed)}; or" if several else f"{needed[0]}; give it too, or"
            raise ValueError(f"{name} needs {what} leave {'it' if several else name} out")


def acts(o: Options, name: str) -> None:
    """Refuse options that act only when sampling or in beam search, in other modes."""
    only = methods.only(name)
    if only == "sampling" and not o.do_sample:
        raise ValueError(f"{name} acts only when sampling; give do_sample too, or leave {name} out")
    if only == "beams" and o.num_beams == 1:
        raise ValueError(f"{name} acts only in beam search; give num_beams above 1, or leave {name} out")


def keeping(o: Options, profile: Profile | None) -> None:
    """Check min_tokens_to_keep: it needs a method that removes tokens, which may be switched off."""
    if o.min_tokens_to_keep is not None:
        there = [*o.acting, *methods.concerned(o.off)]
        heeds = [one.name for one in there if one.keeps and (profile is None or one.name in profile.keeps)]
        if not heeds:
            where = "" if profile is None else f" and heeds it in profile {profile.name!r}"
            raise ValueError(f"min_tokens_to_keep needs a sampler that removes tokens{where}; or leave it out")


def in_order(o: Options, order: Sequence[str]) -> None:
    """Check an order: it names each processor once, every sampler in use, and a constraint after methods that revive
    tokens.
    """
    for name in order:
        require(name in list(methods.PROCESSORS), f"order may name {', '.join(methods.PROCESSORS)}", name)
        require(list(order).count(name) == 1, "order must name nothing twice", name)
    if o.constraint is not None:
        own = rank("constraint", False, order)
        late = [one.name for one in o.acting if one.revives and rank(one.name, one.last, order) > own]
        require(not late, "order must put constraint after what puts forbidden tokens back", late)
    missing = [one.name for one in o.acting if one.only == "sampling" and one.name not in order]
    require(not missing, f"order must name every sampler in use ({', '.join(missing)} is missing)", list(order))


def has(o: Options, profile: Profile) -> None:
    """Refuse methods that a profile's engine doesn't have."""
    for method in o.acting:
        if method.make is not None and method.name not in profile.order:
            raise ValueError(f"profile {profile.name!r} has no {method.name}; leave one of the two out")
        if method.run is not None and not method.with_profiles:
            raise ValueError(f"profile {profile.name!r} is about sampling; leave {asker(o, method)} out")

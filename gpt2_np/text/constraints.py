"""Constraints as automata over ids: a regular expression, a JSON schema, a list of choices or a grammar.

The automaton is the llguidance library's, of the ``constraints`` extra: an Earley parser over a lexer of derivatives of
regular expressions, which walks the trie of all tokens' bytes. Every tokenization of an allowed text is allowed.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..display import Readable
from . import gbnf
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KINDS = ("regex", "json_schema", "choice", "grammar")
KNOWN = 1024  # states of texts that are cached
# Without it, where only one text can follow, only its usual tokenization would be allowed.
EVERY_SPELLING = '\n%llguidance {"no_forcing": true}\n'
# At most one space where JSON allows white space: a model that keeps writing spaces would never close its object.
JSON_STYLE = {"whitespace_pattern": " "}
# Every escape but \uXXXX: with it a property's name could be spelt so that the property's own schema isn't applied.
ESCAPES = {"json_allowed_escapes": 'nrbtf"\\'}
# What only \uXXXX can write: control characters that have no letter of their own, as they or a pattern's escapes stand
# in a schema's JSON.
CONTROL = re.compile(r"\\[ux](?:00)?(?:[01][0-9a-fA-F]|7[fF])|\x7f")


class State(NamedTuple):
    """The state after some new ids: the library's parser, the ids that may follow (one bit each), whether the text is
    complete.
    """

    matcher: LLMatcher | None
    allowed: bytes
    complete: bool


class Vocabulary(Readable):
    """A tokenizer's ids as the library takes them; ids beyond the tokenizer's, up to `size`, never occur.

    ``ValueError`` where the library isn't installed.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ModuleNotFoundError:
            raise ValueError("constraints need llguidance: pip install 'gpt2-np[constraints]'") from None
        self.size, self.tokenizer = size, tokenizer
        self.inner: LLTokenizer = LLTokenizer(TokenizerWrapper(_Words(tokenizer, size)))


class _Words:
    """The interface that the library needs of a tokenizer. The end of a text is an extra id after all others, because
    the decoders decide which of the model's ids end a text.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self.tokenizer = tokenizer
        self.tokens = [*(tokenizer.bytes_of(token) for token in range(size)), b"<end>"]
        self.eos_token_id = size
        self.special_token_ids = [*(token for token in tokenizer.special_ids if token < size), size]

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenizer.encode(text.decode("utf-8", errors="replace"), add_special_tokens=False)


class Automaton:
    """The automaton that says what may follow some new ids (`decoders.processors.constraint.Automaton`).

    It is a pure function of the ids; the states of recent texts are cached, so that the next id costs one step.
    ``ValueError``, in one line, for a constraint that the library can't read or that no text satisfies.
    """

    def __init__(self, vocabulary: Vocabulary, kind: str, value: Any) -> None:
        from llguidance import LLMatcher

        self.kind, self.value, self.size, self.vocabulary = kind, value, vocabulary.size, vocabulary
        matcher = LLMatcher(vocabulary.inner, LLMatcher.grammar_from_lark(grammar(kind, value)), log_level=0)
        if matcher.is_error():
            raise ValueError(refusal(kind, value, matcher.get_error()))
        self._known: OrderedDict[tuple[int, ...], State] = OrderedDict()
        self._nothing = State(None, bytes(-(-self.size // 8)), False)
        self._start = self._after(matcher)
        allowed, complete = self.following(())
        if not complete and not allowed.any():
            raise ValueError(f"{kind} must allow some text, got {shortened(value)}")

    def following(self, new: Sequence[int]) -> tuple[np.ndarray, bool]:
        """Return which ids may follow these new ones, (V,) bool, and whether the text may end here."""
        state = self._state(tuple(map(int, new)))
        bits = np.unpackbits(np.frombuffer(state.allowed, np.uint8), count=self.size, bitorder="little")
        return bits.view(bool), state.complete

    def _state(self, new: tuple[int, ...]) -> State:
        if not new:
            return self._start
        if new not in self._known:
            before = self._known.get(new[:-1])
            begun, rest = (self._start, new) if before is None else (before, new[-1:])
            self._known[new] = self._step(begun, rest)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(new)
        return self._known[new]

    def _step(self, state: State, ids: Sequence[int]) -> State:
        """Return the state after some more ids, without a parser if they can't follow."""
        if state.matcher is not None:
            matcher = state.matcher.deep_copy()
            if matcher.try_consume_tokens(list(ids)) == len(ids):
                return self._after(matcher)
        return self._nothing

    def _after(self, matcher: LLMatcher) -> State:
        allowed = matcher.compute_bitmask()
        if matcher.is_error():
            why = reason(matcher.get_error())
            if why.startswith("NoExtension"):
                return self._nothing
            raise ValueError(f"{self!r} is more than can be followed: {why}")
        return State(matcher, allowed, matcher.is_accepting())

    @property
    def texts(self) -> tuple[str, ...]:
        """The different texts of a ``choice``, in their order."""
        return tuple(dict.fromkeys(self.value))

    def text(self, new: Sequence[int]) -> bytes:
        """Return the bytes that new ids spell."""
        return b"".join(map(self.vocabulary.tokenizer.bytes_of, new))

    def without(self, seen: Collection[bytes]) -> Automaton:
        """Return the automaton of a ``choice`` without some of its texts, which are given as bytes."""
        return Automaton(self.vocabulary, self.kind, [one for one in self.texts if one.encode() not in seen])

    def __repr__(self) -> str:
        return f"{self.kind} {shortened(self.value)}"


def grammar(kind: str, value: Any) -> str:
    """Return a constraint in the library's language, a variant of Lark's. ``ValueError`` for an invalid one."""
    if kind == "regex":
        from llguidance import regex_to_lark

        if not isinstance(value, str):
            raise ValueError(f"regex must be a text, got {value!r}")
        text = f"start: /{regex_to_lark(value, '')}/"
    elif kind == "json_schema":
        text = f"start: %json {json_schema(value)}"
    elif kind == "choice":
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ValueError(f"choice must be a list of at least one text, got {value!r}")
        for one in value:
            if not isinstance(one, str) or any("\ud800" <= letter <= "\udfff" for letter in one):
                raise ValueError(f"choice must be a list of texts, got {one!r}")
        text = "start: " + " | ".join(json.dumps(one) for one in value)
    else:
        if not isinstance(value, str):
            raise ValueError(f"grammar must be a text, got {value!r}")
        text = value
        if gbnf.is_gbnf(value):
            try:
                text = gbnf.to_lark(value)
            except ValueError as error:
                raise ValueError(f"grammar {GBNF_RULE}, got {shortened(value)}: {error}") from None
    return text + EVERY_SPELLING


def json_schema(value: Any) -> str:
    """Return a schema (a mapping, a bool, or either as text) as text, with our settings of the library as its last key.

    At most one space separates elements, unless a top-level ``"x-guidance"`` says otherwise. Strings contain no
    ``\\uXXXX``, unless that key names ``json_allowed_escapes`` or the schema has a control character that needs one.
    """
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        if not isinstance(schema, Mapping):
            return json.dumps(schema, allow_nan=False)
        # The library takes this key out and puts the last one in its place, so that it must be the last itself: the
        # order of keywords is the order of the properties that they name.
        keywords = {key: one for key, one in schema.items() if key != "x-guidance"}
        style = schema.get("x-guidance", JSON_STYLE)
        if isinstance(style, Mapping) and not CONTROL.search(json.dumps(keywords)):
            style = ESCAPES | dict(style)
        return json.dumps(keywords | {"x-guidance": style}, allow_nan=False)
    except RecursionError:
        raise ValueError("json_schema must be JSON that is nested less deeply") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"json_schema must be JSON: {error}") from None


RULES = {
    "regex": "must be a regular expression of Rust's syntax (without look-around and back-references)",
    "json_schema": "must be a schema that can be enforced",
    "choice": "must be a list of texts",
    "grammar": "must be a context-free grammar in Lark's syntax",
}
GBNF_RULE = "must be a grammar in GBNF that can be read as one in Lark's syntax"


def refusal(kind: str, value: Any, error: str) -> str:
    """Return the rule, the value, and the library's objection, in one line."""
    why = reason(error)
    if kind != "grammar":  # whose lines the caller wrote
        why = re.sub(r"^line \d+, column \d+: ", "", why)
        why = why.split("failed to compile JSON schema: ")[-1].split("(in regex): ")[-1]
    return f"{kind} {RULES[kind]}, got {shortened(value)}: {why}"


def reason(error: str) -> str:
    """Return the library's error in one line: its first line, or the message of a regular expression's parser below
    it.
    """
    lines = error.strip().splitlines() or ["unknown error"]
    first = re.sub(r"^(at )?(\d+)\((\d+)\): ", r"line \2, column \3: ", lines[0])
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), first)


def shortened(value: Any, limit: int = 100) -> str:
    """Return a value as Python writes it, in one line and short enough for an error."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def from_options(names: dict[str, Any], vocabulary: Callable[[], Vocabulary]) -> Automaton | None:
    """Remove a constraint from options by name, and build its automaton. ``ValueError`` if there are two."""
    given = [kind for kind in KINDS if names.get(kind) is not None]
    found = {kind: names.pop(kind) for kind in KINDS if kind in names}
    if not given:
        return None
    if len(given) > 1 or names.get("constraint") is not None:
        several = [*given, *(["constraint"] if names.get("constraint") is not None else [])]
        raise ValueError(f"there can be one constraint, got {' and '.join(several)}")
    return Automaton(vocabulary(), given[0], found[given[0]])

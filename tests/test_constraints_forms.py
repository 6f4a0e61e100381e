"""What schemas and grammars allow, told by whole texts: order, names, formats, GBNF."""

from __future__ import annotations

import itertools
import json
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2_np import GPT2
from gpt2_np.text.constraints import Automaton, Vocabulary


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def may_follow(model: GPT2):
    """Whether a text may be the whole answer, given a kind and a value of a constraint."""
    vocabulary = Vocabulary(model.tokenizer, model.config.vocab_size)
    made = lru_cache(lambda kind, value: Automaton(vocabulary, kind, value))

    def told(kind: str, value, text: str) -> bool:
        ids = model.tokenizer.encode(text, add_special_tokens=False)
        return made(kind, value if isinstance(value, str) else json.dumps(value)).following(ids)[1]

    return told


KEYWORDS = {
    "type": "object",
    "title": "a title",
    "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}},
    "allOf": [{"properties": {"d": {"type": "integer"}}}, {"properties": {"c": {"type": "integer"}}}],
    "required": ["a", "b", "c", "d"],
}


@given(order=st.permutations(list(KEYWORDS)), style=st.sampled_from([None, 0, 3]))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_properties_come_in_the_order_of_the_keywords_that_name_them(may_follow, order: list, style) -> None:
    schema = {key: KEYWORDS[key] for key in order}
    if style is not None:  # a user's own settings, wherever they stand
        items = list(schema.items())
        schema = dict([*items[:style], ("x-guidance", {"whitespace_flexible": False}), *items[style:]])
    first = order.index("properties") < order.index("allOf")
    for names in itertools.permutations("abcd"):
        text = "{" + ",".join(f'"{name}":1' for name in names) + "}"
        assert may_follow("json_schema", schema, text) == ("".join(names) == ("badc" if first else "dcba"))


def test_a_name_in_another_spelling_is_no_way_past_its_schema(may_follow) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "patternProperties": {"^b": {"type": "null"}}}
    told = {"a": '{"a":1,"b":null,"c":""}', "\\u0061": '{"a":1,"\\u0061":""}', "\\u0062": '{"a":1,"\\u0062":""}'}
    assert [name for name, text in told.items() if may_follow("json_schema", schema, text)] == ["a"]
    assert not may_follow("json_schema", schema, '{"a":1,"a":""}')
    # A user who wants the escapes says so, and a schema that needs one has it.
    asked = schema | {"x-guidance": {"json_allowed_escapes": 'u"'}}
    assert may_follow("json_schema", asked, told["\\u0061"])
    assert [may_follow("json_schema", {"const": one}, json.dumps(one)) for one in ("\x01", "\n\\", "é")] == [
        True,
        True,
        False,
    ]
    assert may_follow("json_schema", {"const": "é"}, '"é"')
    # What remains, as the page says: a name that isn't listed may come twice.
    assert may_follow("json_schema", {"type": "object", "additionalProperties": {"type": "integer"}}, '{"z":1,"z":2}')


def test_a_format_is_held_in_its_shape(model: GPT2, may_follow) -> None:
    for text, shape in (("2021-02-28", True), ("2021-02-29", True), ("2021-13-01", False), ("2021-2-1", False)):
        assert may_follow("json_schema", {"type": "string", "format": "date"}, f'"{text}"') == shape
    with pytest.raises(ValueError, match=r"json_schema must be a schema that can be enforced.*idn-email"):
        model.generate("Once", json_schema={"type": "string", "format": "idn-email"})


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "\\u00e9" "\\x41" # a comment with "quotes"\n', ["éA"], ["e"]),
        ('root ::= "\\U0001F642" .', ["🙂\n", "🙂x"], ["🙂"]),
        ("root ::= [\\u0041-\\u0043]+", ["BAC"], ["D", ""]),
        ('root ::= ("a" | root-two)\nroot-two ::= "x" root?', ["a", "xxa", "x"], ["ax"]),
        ('root ::= "a"{2,3} ("\\n" # and\n | "/")', ["aa\n", "aaa/"], ["a/"]),
        ('root ::= word "b"\nword ::= [a-z]*', ["b"], ["aab"]),  # a terminal takes what it can, as the page says
    ],
)
def test_grammars_in_gbnf(may_follow, grammar: str, good: list[str], bad: list[str]) -> None:
    for text in [*good, *bad]:
        assert may_follow("grammar", grammar, text) == (text in good), text

"""Text under a constraint: against `re`, `jsonschema`, Lark, and every id by brute force."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time

import jsonschema
import lark
import numpy as np
import pytest
import tokenizers
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.cli.generate import generate as generate_command
from gpt2_np.text.constraints import Automaton, Vocabulary
from gpt2_np.text.tokenizer import BYTE_OF_LETTER, Tokenizer

LETTER_OF_BYTE = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
STRATEGIES = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"do_sample": st.just(True), "seed": st.integers(0, 999)}),
    st.fixed_dictionaries(
        {
            "do_sample": st.just(True),
            "seed": st.integers(0, 999),
            "top_p": st.floats(0.5, 1),
            "temperature": st.floats(0.5, 3),
        }
    ),
    st.fixed_dictionaries({"num_beams": st.integers(2, 4), "early_stopping": st.booleans()}),
)
some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


def tiny_tokenizer() -> Tokenizer:
    """a, b, c, the two bytes of é, some pairs, and an end-of-text; one id is left free."""
    words = [
        b"a",
        b"b",
        b"c",
        "é".encode()[:1],
        "é".encode()[1:],
        b"ab",
        b"bc",
        b"aa",
        b"abc",
        "é".encode(),
        b"a" + "é".encode()[:1],
    ]
    table = {"".join(LETTER_OF_BYTE[byte] for byte in word): number for number, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({**table, "<|endoftext|>": len(words) + 1}, []))
    inner.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", special=True)])
    return Tokenizer(inner)


TINY = tiny_tokenizer()
VOCABULARY = Vocabulary(TINY, TINY.size + 2)  # two ids more than the tokenizer knows
ALPHABET, LONGEST = "abcé", 4
EVERYTHING = ["".join(letters) for n in range(LONGEST + 1) for letters in itertools.product(ALPHABET, repeat=n)]


def patterns(letters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Regular expressions in the part of the language that Python and Rust share."""
    several = st.lists(letters, min_size=1, max_size=3).map(lambda chosen: "".join(map(re.escape, chosen)))
    atoms = st.one_of(
        letters.map(re.escape),
        st.just("."),
        several.map(lambda inside: f"[{inside}]"),
        several.map(lambda inside: f"[^{inside}]"),
    )
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            inner.map(lambda one: f"({one})?"),
            inner.map(lambda one: f"({one})*"),
            st.tuples(inner, st.integers(0, 2), st.integers(2, 3)).map(lambda it: f"({it[0]}){{{it[1]},{it[2]}}}"),
        ),
        max_leaves=5,
    )


def by_brute_force(language: list[bytes], before: bytes) -> tuple[list[bool], bool]:
    """Which of the tiny vocabulary's ids some text goes on with, and whether one ends here."""
    words = [TINY.bytes_of(token) for token in range(VOCABULARY.size)]
    words = [b"" if token in TINY.special_ids else word for token, word in enumerate(words)]
    allowed = [bool(word) and any(text.startswith(before + word) for text in language) for word in words]
    return allowed, before in language


def same_everywhere(automaton: Automaton, language: list[bytes], random: np.random.Generator) -> None:
    """Walk along ids that are allowed, and one that isn't, comparing each step with brute force."""
    new: list[int] = []
    for _ in range(6):
        before = b"".join(TINY.bytes_of(token) for token in new)
        allowed, complete = automaton.following(new)
        assert (allowed.tolist(), complete) == by_brute_force(language, before)
        forbidden = int(random.choice(np.flatnonzero(~allowed)))
        nothing, ended = automaton.following([*new, forbidden])
        assert not nothing.any()
        assert not ended
        if not allowed.any():
            break
        new.append(int(random.choice(np.flatnonzero(allowed))))


@given(patterns(st.sampled_from(ALPHABET)), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_what_a_regex_allows_by_brute_force(pattern: str, seed: int) -> None:
    language = [text.encode() for text in EVERYTHING if re.fullmatch(pattern, text)]
    # Only texts of the alphabet, up to a length, can be counted: others are ruled out.
    grammar = f"start: TEXT\nTEXT: /({pattern})/ & /[{ALPHABET}]{{0,{LONGEST}}}/\n"
    if not language:
        with pytest.raises(ValueError, match="grammar must allow some text"):
            Automaton(VOCABULARY, "grammar", grammar)
        return
    same_everywhere(Automaton(VOCABULARY, "grammar", grammar), language, np.random.default_rng(seed))


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=LONGEST), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_what_choices_allow_by_brute_force(choices: list[str], seed: int) -> None:
    language, random = [choice.encode() for choice in choices], np.random.default_rng(seed)
    same_everywhere(Automaton(VOCABULARY, "choice", choices), language, random)
    as_regex = Automaton(VOCABULARY, "regex", "|".join(map(re.escape, choices)))
    same_everywhere(as_regex, language, random)


def test_the_order_of_questions_changes_nothing() -> None:
    """However many texts are remembered, and whatever was asked before."""
    fresh, used = (Automaton(VOCABULARY, "regex", "(ab|bc|a)*c") for _ in range(2))
    texts = [list(ids) for n in range(4) for ids in itertools.product(range(7), repeat=n)]
    for text in reversed(texts):
        used.following(text)
    for text in texts:
        for one, other in zip(fresh.following(text), used.following(text), strict=True):
            assert np.array_equal(one, other)


# ---- on the bundled model: what ends always parses ------------------------------------------------------------------


@given(pattern=patterns(st.sampled_from('ab .é\n/"\\-')), options=STRATEGIES)
@some
def test_regex(model: GPT2, pattern: str, options: dict) -> None:
    out = model.generate("Once", regex=pattern, max_new_tokens=20, **options)
    event(out.finish_reason)
    if out.finish_reason == "stop":
        assert re.fullmatch(pattern, out.text)


@given(choices=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5), options=STRATEGIES)
@some
def test_choice(model: GPT2, choices: list[str], options: dict) -> None:
    out = model.generate("Once", choice=choices, max_new_tokens=60, **options)
    assert out.finish_reason == "stop"
    assert out.text in choices


leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(0, 99),
    ),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 6)),
    st.lists(st.text(max_size=4) | st.integers(0, 9), min_size=1, max_size=3).map(lambda values: {"enum": values}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda items, n: {"type": "array", "items": items, "maxItems": n}, inner, st.integers(0, 3)),
        st.builds(
            lambda fields, data: {
                "type": "object",
                "properties": fields,
                "additionalProperties": False,
                "required": sorted(fields)[:data],
            },
            st.dictionaries(st.sampled_from(["name", "age", 'the "x"', "é"]), inner, max_size=3),
            st.integers(0, 3),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
    ),
    max_leaves=4,
)


@given(schema=schemas, options=STRATEGIES, as_text=st.booleans())
@some
def test_json_schema(model: GPT2, schema: dict, options: dict, as_text: bool) -> None:
    given_as = json.dumps(schema) if as_text else schema
    out = model.generate("Once", json_schema=given_as, max_new_tokens=80, **options)
    event(out.finish_reason)
    if out.finish_reason == "stop":
        jsonschema.validate(json.loads(out.text), schema)
        assert "  " not in re.sub(r'"([^"\\]|\\.)*"', "text", out.text)  # one space at most between things


GRAMMAR = """
start: sum
sum: product (("+" | "-") product)*
product: atom ("*" atom)*
atom: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,3}/
"""


@given(options=STRATEGIES, n=st.integers(3, 25))
@some
def test_grammar(model: GPT2, options: dict, n: int) -> None:
    out = model.generate("Once", grammar=GRAMMAR, max_new_tokens=n, **options)
    event(out.finish_reason)
    if out.finish_reason == "stop":
        lark.Lark(GRAMMAR).parse(out.text)


def in_gbnf(pattern: str) -> str:
    """A pattern of `patterns` in GBNF: a character is a literal, all else is written as there."""
    return re.sub(
        r"\[[^]]*\]|\\?[^\\()|*?{},.0-9]|\d+", lambda it: it[0] if it[0][0] in "[0123456789" else f'"{it[0]}"', pattern
    )


@given(patterns(st.sampled_from(ALPHABET)), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_gbnf_allows_by_brute_force(pattern: str, seed: int) -> None:
    # "." and "[^a]" are any characters: those of the alphabet stand for them, since others can't be counted.
    pattern = re.sub(r"\[\^(.*?)\]", lambda it: "[" + "".join(set(ALPHABET) - set(it[1])) + "]", pattern)
    pattern = pattern.replace("[]", "[c]").replace(".", f"[{ALPHABET}]")
    pattern = pattern.replace("*", "{0,4}")
    assume(not re.search(r"[?}]\)[?{]", pattern))  # a repetition of nothing but a repetition isn't read
    texts = [text.encode() for text in EVERYTHING if re.fullmatch(pattern, text)]
    automaton = Automaton(VOCABULARY, "grammar", f"root ::= {in_gbnf(pattern)}\n")
    random = np.random.default_rng(seed)
    for text in random.permutation(np.array(texts or [b""], object))[:4]:
        new = [next(t for t in range(5) if TINY.bytes_of(t) == bytes([byte])) for byte in text]
        assert automaton.following(new)[1] == (text in texts)
    for text in random.permutation(np.array([one.encode() for one in EVERYTHING], object))[:20]:
        new = [next(t for t in range(5) if TINY.bytes_of(t) == bytes([byte])) for byte in text]
        assert automaton.following(new)[1] == (text in texts)


def test_several_prompts_several_texts_and_streaming(model: GPT2) -> None:
    pattern = r" (good|bad)[a-z ]{5,20}\."
    options = {"regex": pattern, "do_sample": True, "seed": 1}
    found = model.generate(["The king was", "It"], num_return_sequences=3, **options)
    assert len(found) == 6
    assert all(re.fullmatch(pattern, one.text) and one.finish_reason == "stop" for one in found)
    assert "".join(model.stream("The king was", **options)) == model.generate("The king was", **options).text
    cut = model.generate("The king was", regex=pattern, max_new_tokens=2)
    assert cut.finish_reason == "length"
    assert not re.fullmatch(pattern, cut.text)


def test_a_model_without_end_of_text(model: GPT2) -> None:
    out = model.generate("The king was", choice=[" good", " not good"], eos_token_id=None)
    assert (out.text in (" good", " not good"), out.finish_reason) == (True, "stop")
    assert model.tokenizer.end_of_text not in out.ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "("}, r"regex must be a regular expression of Rust's syntax .*, got '\(': unclosed group"),
        ({"regex": "(?=a)b"}, r"got '\(\?=a\)b': look-around, including look-ahead and look-behind, is not supported"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": r"[^\s\S]"}, "regex must allow some text"),
        ({"regex": 3}, "regex must be a text, got 3"),
        ({"json_schema": {"uniqueItems": True}}, "json_schema must be a schema that can be enforced.*uniqueItems"),
        ({"json_schema": {"type": "thing"}}, "Invalid type: thing"),
        ({"json_schema": "{"}, "json_schema must be JSON: Expecting property name"),
        ({"json_schema": False}, "schema is false"),
        ({"json_schema": {"pattern": "(", "type": "string"}}, "unclosed group"),
        ({"choice": []}, r"choice must be a list of at least one text, got \[\]"),
        ({"choice": "good"}, "choice must be a list of at least one text, got 'good'"),
        ({"choice": ["\ud800"]}, "choice must be a list of texts"),
        ({"grammar": "start: foo"}, 'grammar must be a context-free .* Lark.*line 1, column 8: unknown name: "foo"'),
        ({"grammar": "start: x\nx: x"}, "grammar must allow some text"),
        ({"grammar": "root ::= x"}, "grammar must be a grammar in GBNF .*, got 'root ::= x': Rule 'x' not found"),
        ({"grammar": 'root ::= ("a"?)*'}, "Lark's syntax, got .*: line 3, column 12: Expected value"),
        ({"grammar": 'root ::= "a\\'}, "grammar must be a grammar in GBNF .*: unexpected end of input"),
        ({"grammar": 'root ::= "\\ud800"'}, r"GBNF .*: \\ud800 is no character"),
        ({"grammar": "root ::= " + "(" * 5000}, "GBNF .*: it is nested too deeply"),
        ({"regex": "a", "choice": ["b"]}, "there can be one constraint, got regex and choice"),
        ({"regex": "a", "min_new_tokens": 9}, r"no token is left .* after constraint: regex 'a' \(before it: min_new"),
    ],
)
def test_what_can_t_be(model: GPT2, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        model.generate("Once", **options)
    assert "\n" not in str(error.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ValueError, match=r"^constraints need llguidance: pip install 'gpt2-np\[constraints\]'$"):
        GPT2.from_pretrained().generate("Once", regex="a")


def test_the_cost_of_a_token_at_gpt_2_s_vocabulary() -> None:
    """Every byte and 50,000 random words: a generous bound on what takes about a tenth of it."""
    random, words = np.random.default_rng(0), [bytes([byte]) for byte in range(256)]
    words += [bytes(random.integers(97, 123, random.integers(2, 9)).tolist()) for _ in range(50_001)]
    words = list(dict.fromkeys(words))
    table = {"".join(LETTER_OF_BYTE[byte] for byte in word): number for number, word in enumerate(words)}
    vocabulary = Vocabulary(Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(table, []))), len(words))
    automaton, new, took = Automaton(vocabulary, "regex", "[a-z ]{2,400}\\."), [], []
    for _ in range(40):
        began = time.perf_counter()
        allowed, _ = automaton.following(new)
        took.append(time.perf_counter() - began)
        new.append(int(np.flatnonzero(allowed)[-1]))
    assert np.median(took) < 10e-3


# ---- the command line -----------------------------------------------------------------------------------------------


def test_the_command_line(model: GPT2, tmp_path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "laugh.lark"
    schema.write_text('{"type": "integer", "maximum": 99, "minimum": 0}')
    grammar.write_text('start: (" ha" | " ho")~1..5 "!"')
    for arguments, options in (
        (["--regex", r" (good|bad)\."], {"regex": r" (good|bad)\."}),
        (["--json-schema", str(schema)], {"json_schema": schema.read_text()}),
        (["--json-schema", '{"type": "boolean"}'], {"json_schema": {"type": "boolean"}}),
        (["--choice", " good", "--choice", " bad"], {"choice": [" good", " bad"]}),
        (["--grammar", str(grammar)], {"grammar": grammar.read_text()}),
    ):
        done = CliRunner().invoke(cli, ["generate", "The king was", "--json", *arguments])
        assert done.exception is None, done.output
        found = json.loads(done.stdout)
        assert found["finish_reason"] == "stop"
        assert found["text"] == model.generate("The king was", **options).text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json-schema", "nowhere.json"],
        ["--grammar", "nowhere.lark"],
        ["--regex", "("],
        ["--regex", "a", "--choice", "b"],
    ],
)
def test_the_command_line_refuses(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["generate", "Once", *arguments])
    assert isinstance(done.exception, (ValueError, OSError, SystemExit))
    assert done.exit_code != 0


def test_help_has_an_example() -> None:
    shown = " ".join(CliRunner().invoke(generate_command, ["--help"]).stdout.split())
    assert r'Example: gpt2-np generate "The king was" --regex " (good|bad)[a-z ]{5,20}\."' in shown
    for name in ("--regex", "--json-schema", "--choice", "--grammar"):
        assert name in shown

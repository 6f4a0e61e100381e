"""The tokenizer in plain Python beside the ``tokenizers`` library: the same ids, the same text, on whatever is hard."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_tokenizer

from gpt2_np import GPT2
from gpt2_np.system.files import panics_as_errors
from gpt2_np.text import own_tokenizer, tokenizer_files, tokenizers_library
from gpt2_np.text.added_tokens import AddedToken
from gpt2_np.text.byte_level_bpe import WHITE_SPACE, BytePairs, category, pieces, spelt
from gpt2_np.text.constraints import Automaton, Vocabulary
from gpt2_np.text.dry_breakers import DEFAULT, breaker_sequences
from gpt2_np.text.tokenizer import Tokenizer
from gpt2_np.weights.hub import BUNDLED

PUBLISHED = next(
    (path / "shared/gpt2-bpe" for path in Path(__file__).parents if (path / "shared/gpt2-bpe").is_dir()), None
)
FOLDERS = [BUNDLED / "tales", *([] if PUBLISHED is None else [PUBLISHED])]
SPACES = "".join(sorted(WHITE_SPACE)) + "\x1c\x1d\x1e\x1f\u180e\u200b\u2060\ufeff"
HARD = [
    "",
    " ",
    *SPACES,
    *(f"a{space}b{space}{space}c {space}d{space} e{space}" for space in SPACES),
    SPACES,
    "it's IT'S 'S'T'RE'VE'M'LL'D's't're've'm'll'd'sx 'ſ 'ré ''s ’s '' 's's",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 ☺️ ❤️‍🔥 \U0001f9d1\u200d\U0001f680",
    "e\u0301 a\u0308\u0323 \u0301 n\u0303o क्षि நி \u0e01\u0e33",
    "中文字。日本語のテキスト 한국어 ｆｕｌｌ　ｗｉｄｔｈ",
    "שָׁלוֹם مرحبا \u202eabc\u202c \u200fא1ב2",
    "१२३ ٤٥٦ ໗ 万 Ⅻ ½ ² ① 𝟙𝟚 １２ a1b२c",
    "\0 a\0b \x01\x7f\x80\x9f\xad \ufffd \ufffe \U0010ffff \ue000",
    "<|endoftext|>",
    "a<|endoftext|> b <|endoftext|><|endoftext|>\n<|endoftext",
    "don't  stop   \n\n\n\t\tnow   ",
    "_snake_case __init__ a_1 $5.00 #!/bin/sh <html></html> C++",
    "\u1c89\ua7cb\ua7da\U00010d4a\U00010d40\U000116d0\U0002ebf0\U000323af \u0870 \U0001e4f0",  # Unicode 14 to 16
    "ﬃ ǅ ß İ ı K Å ª º ʰ ⓐ 🅰",
    "\r\n\r\n \r a\rb",
]
LONG = [
    "a" * 100_000,
    " " * 100_000,
    "中" * 20_000,
    "ab" * 50_000,
    "<|endoftext|> " * 2_000,
    "\u00a0" * 20_000,
    "1a!" * 33_333,
]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def both(request: pytest.FixtureRequest) -> tuple[Tokenizer, Tokenizer]:
    return plain_tokenizer(request.param), Tokenizer.from_folder(request.param)


def random_texts(count: int) -> list[str]:
    """Texts of every kind of character, and of those that meet in the pattern and in merges."""
    rng = random.Random(2019)
    parts = [*SPACES, *"1२é😀\u200d中\0!K", " the", "'s", "'S", "n't", "e\u0301", "שלום", "...", "<|endoftext|>"]
    codes = [0x80, 0x300, 0x3100, 0x20000, sys.maxunicode + 1]

    def text() -> str:
        kind = rng.randrange(3)
        if kind == 0:
            drawn = (rng.randrange(rng.choice(codes)) for _ in range(rng.randrange(30)))
            return "".join(chr(code) for code in drawn if not 0xD800 <= code < 0xE000)
        if kind == 1:
            return "".join(rng.choice(parts) for _ in range(rng.randrange(20)))
        return "".join(rng.choice("abcdehilnorst '\n!1R") for _ in range(rng.randrange(60)))

    return [text() for _ in range(count)]


def test_hard_texts(both: tuple[Tokenizer, Tokenizer]) -> None:
    plain, library = both
    for text in [*HARD, "".join(HARD), *LONG]:
        ids = library.encode(text)
        assert plain.encode(text) == ids, text[:60]
        assert plain.decode(ids) == library.decode(ids) == text


def test_ten_thousand_random_texts(both: tuple[Tokenizer, Tokenizer]) -> None:
    plain, library = both
    for text in random_texts(10_000):
        assert plain.encode(text) == library.encode(text), text


class Counting(dict):
    """A table of merges that counts how often it is asked."""

    asked = 0

    def get(self, *given):
        self.asked += 1
        return super().get(*given)

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)


@pytest.mark.parametrize("merges", [[], [("x", "x"), ("xx", "xx"), ("xxxx", "xxxx")], [("x", "x"), ("xx", "x")]])
def test_the_work_of_one_long_word_grows_as_its_length_does(merges: list[tuple[str, str]]) -> None:
    words = ["x", *("".join(pair) for pair in merges)]
    asked = []
    for n in (1_000, 9_000):
        pairs = BytePairs({word: number for number, word in enumerate(words)}, merges)
        pairs.merges = Counting(pairs.merges)
        assert sum(len(words[token]) for token in pairs.encode("x" * n)) == n
        asked.append(pairs.merges.asked / n)
    assert max(asked) < 6
    assert asked[1] < 1.01 * asked[0]


def test_any_ids_decode_and_stream_alike(both: tuple[Tokenizer, Tokenizer]) -> None:
    plain, library = both
    rng, size = random.Random(1), library.size
    for _ in range(300):
        ids = [rng.randrange(size + 3) for _ in range(20)]
        text = library.decode(ids)
        streamer = plain.streamer()
        assert plain.decode(ids) == text == "".join([*map(streamer.feed, ids), streamer.finish()])
        assert plain.tokens(ids) == library.tokens(ids)


def test_all_that_is_asked_of_a_vocabulary(both: tuple[Tokenizer, Tokenizer]) -> None:
    plain, library = both
    for name in ("size", "end_of_text", "special_ids", "ids"):
        assert getattr(plain, name) == getattr(library, name), name
    assert all(plain.bytes_of(token) == library.bytes_of(token) for token in library.ids)
    assert plain.inner.get_vocab() == library.inner.get_vocab()
    assert breaker_sequences(plain, DEFAULT) == breaker_sequences(library, DEFAULT)


def test_a_lone_surrogate_is_refused(both: tuple[Tokenizer, Tokenizer]) -> None:
    for tokenizer in both:
        with pytest.raises(ValueError, match="text must be valid Unicode, got a lone surrogate"):
            tokenizer.encode("a \udc80")


def kind(code: int) -> str:
    """What the pattern tells apart: letters, numbers, white space, others."""
    found = category(chr(code))[0]
    return "Z" if chr(code) in WHITE_SPACE else found if found in "LN" else "O"


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_kind_of_character_is_cut_as_the_library_cuts_it(every: bool) -> None:
    """Beside a letter and beside a digit; every character, or those on both sides of a change of kind."""
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    if not every:
        codes = [code for code in codes if code < 0x32400 and unicodedata.category(chr(code)) != "Co"]
        kinds = list(map(kind, codes))
        changes = {code for code, (one, other) in zip(codes, pairwise(kinds), strict=False) if one != other}
        codes = [code for code in codes if code in changes or code - 1 in changes]
    before = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert len(codes) > 1500
    for first in range(0, len(codes), 100):
        text = "".join(f"a{chr(code)}a\n1{chr(code)}1 " for code in codes[first : first + 100])
        assert [spelt(piece) for piece in pieces(text)] == [piece for piece, _ in before.pre_tokenize_str(text)]


LETTERS = "abc"


@st.composite
def models(draw: Any) -> dict[str, Any]:
    """A BPE whose merges were never learnt: tokens in any order, several merges to one token, letters that lack."""
    words = draw(st.lists(st.text(LETTERS, min_size=2, max_size=3), unique=True, min_size=3, max_size=12))
    letters = draw(st.sets(st.sampled_from(LETTERS), min_size=1))
    vocab = {word: number for number, word in enumerate([*sorted(letters), *words, "?"])}
    splits = [(word[:cut], word[cut:]) for word in words for cut in range(1, len(word))]
    merges = [pair for pair in splits if pair[0] in vocab and pair[1] in vocab]
    merges = draw(st.permutations(merges + draw(st.lists(st.sampled_from(merges), max_size=2)) if merges else []))
    together = draw(st.booleans())
    pairs = [" ".join(pair) if together else list(pair) for pair in merges]
    model = {"type": "BPE", "vocab": vocab, "merges": pairs, "unk_token": draw(st.sampled_from([None, "?"]))}
    flags = {name: draw(st.booleans()) for name in ("fuse_unk", "ignore_merges")}
    before = {"type": "ByteLevel", "trim_offsets": True} | {
        name: draw(st.booleans()) for name in ("add_prefix_space", "use_regex")
    }
    if draw(st.booleans()):
        before = {"type": "Sequence", "pretokenizers": [before]}
    marks = draw(st.lists(st.text("ab ?", min_size=1, max_size=3), unique=True, max_size=3))
    added = [
        {"id": number, "content": mark}
        | {name: draw(st.booleans()) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        for number, mark in enumerate(marks)
    ]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": None,
        "decoder": None,
        "model": model | flags | {"continuing_subword_prefix": "", "byte_fallback": False},
    }


@given(
    content=models(),
    texts=st.lists(st.text(LETTERS, max_size=12) | st.text(LETTERS + "?  \n1", max_size=12), min_size=4, max_size=8),
)
@settings(max_examples=250, deadline=None)
def test_any_model_merges_as_the_library_does(content: dict[str, Any], texts: list[str]) -> None:
    plain = own_tokenizer.from_file(Path("tokenizer.json"), json.loads(json.dumps(content)))
    library = tokenizers.Tokenizer.from_str(json.dumps(content))
    library.no_truncation()
    again = tokenizers.Tokenizer.from_str(plain.to_str())
    for text in texts:
        try:
            with panics_as_errors():
                ids = library.encode(text).ids
        except ValueError:  # a mark that swallowed another: the library panics
            continue
        assert plain.encode(text).ids == ids, text
        again.no_truncation()
        assert again.encode(text).ids == ids, text
    assert plain.get_vocab() == library.get_vocab()


def tales(**changes: Any) -> dict[str, Any]:
    return json.loads((BUNDLED / "tales/tokenizer.json").read_text(encoding="utf-8")) | changes


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [7, 8], "tokens": ["x", "y"]}},
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    "around", [None, BYTE_LEVEL, TEMPLATE, {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]}]
)
def test_what_is_put_around_a_text(around: Any) -> None:
    content = tales(post_processor=around)
    plain, library = own_tokenizer.from_file(Path("x"), content), tokenizers.Tokenizer.from_str(json.dumps(content))
    for text in ("", "a king", "<|endoftext|>"):
        assert plain.encode(text).ids == library.encode(text).ids
        assert plain.encode(text, add_special_tokens=False).ids == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer NFC needs the tokenizers library, which is not installed: pip"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer Whitespace needs the tokenizers library"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 2}},
            "pre_tokenizer Sequence needs the",
        ),
        ({"model": {"type": "Unigram"}}, "model Unigram needs the tokenizers library"),
        ({"model": {"type": "BPE", "dropout": 0.1}}, r"dropout 0\.1 needs the tokenizers library"),
        ({"post_processor": {"type": "BertProcessing"}}, "post_processor BertProcessing needs the tokenizers library"),
        ({"post_processor": {"type": "Sequence", "processors": [TEMPLATE] * 2}}, "post_processor Sequence needs the"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "is not a sound tokenizer file: vocab must map"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}},
            "sound tokenizer file: merge 1 must be two",
        ),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
            "merge 1 needs the token 'b', which is not in",
        ),
        ({"added_tokens": [{"id": 0}]}, "added_tokens must hold marks"),
    ],
)
def test_what_only_the_library_can_read_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tales(**changes)))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ValueError, match=message) as error:
        plain_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path)) or "post_processor" in message


def test_what_it_saves_is_read_by_the_library(tmp_path: Path) -> None:
    config = {"add_bos_token": True, "pad_token": "<pad>", "add_prefix_space": True}
    model = tales()["model"]
    (tmp_path / "encoder.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "vocab.bpe").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    plain, library = plain_tokenizer(tmp_path), Tokenizer.from_folder(tmp_path)
    written = tokenizers.Tokenizer.from_str(plain.inner.to_str())
    for text in ("", "a king <pad> é", "x<|endoftext|>"):
        assert written.encode(text).ids == plain.encode(text) == library.encode(text)
    assert json.loads(plain.inner.to_str()) == json.loads(library.inner.to_str())


def test_a_constraint_walks_its_vocabulary() -> None:
    pytest.importorskip("llguidance")
    plain, size = plain_tokenizer(BUNDLED / "tales"), GPT2.from_pretrained().config.vocab_size
    library = Tokenizer.from_folder(BUNDLED / "tales")
    found = [Automaton(Vocabulary(one, size), "regex", "(a king|two é+)").following(()) for one in (plain, library)]
    assert found[0][0].any()
    assert (found[0][0] == found[1][0]).all()


def test_the_two_makers_have_the_same_functions() -> None:
    names = {"byte_level_bpe", "from_file", "post_processor", "template", "add"}
    for name in names:
        one, other = (getattr(module, name) for module in (own_tokenizer, tokenizers_library))
        assert list(one.__annotations__) == list(other.__annotations__), name
    assert tokenizer_files.library() is tokenizers_library


@pytest.mark.parametrize("flags", [{}, {"special": True}, {"normalized": True, "special": True}, {"lstrip": True}])
def test_marks_are_equal_where_the_library_s_are(flags: dict[str, bool]) -> None:
    for other in ({}, {"special": True}, {"normalized": False}, {"normalized": True, "special": True}):
        theirs = tokenizers.AddedToken("a", **flags) == tokenizers.AddedToken("a", **other)
        assert (AddedToken("a", **flags) == AddedToken("a", **other)) is theirs

"""The tokenizer against transformers' own, from each kind of file; streaming that never breaks a character."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_tokenizer
from transformers import GPT2Tokenizer

from gpt2_np.model.config import Config
from gpt2_np.text.tokenizer import Tokenizer

TEXTS = [
    "",
    "Hello world",
    " two  spaces\n\nand\tlines ",
    "it's they'll I'VE",
    "naïve café — 你好 😀👍🏽",
    "12 + 5.6",
    "<|endoftext|>",
    "a<|endoftext|> b<|endoftext|>",
    "<|endof text|>",
    "\u200bzero\u0000width",
]


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small byte-level BPE, trained here, in each of the three kinds of files."""
    folder = tmp_path_factory.mktemp("bpe")
    inner = tokenizers.ByteLevelBPETokenizer()
    corpus = ["the cat sat on the mat and the dog sat on the log", "naïve café, 你好 world", "Hello hello 12 123"] * 20
    inner.train_from_iterator(corpus, vocab_size=400, min_frequency=2, special_tokens=["<|endoftext|>"])
    inner.save_model(str(folder))
    (folder / "openai").mkdir()
    shutil.copy(folder / "vocab.json", folder / "openai/encoder.json")
    shutil.copy(folder / "merges.txt", folder / "openai/vocab.bpe")
    (folder / "whole").mkdir()
    GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder / "whole")
    return folder


@pytest.fixture(scope="session")
def theirs(bpe: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer(str(bpe / "vocab.json"), str(bpe / "merges.txt"))


@pytest.fixture(scope="session", params=["", "openai", "whole", "whole, plain"])
def ours(request: pytest.FixtureRequest, bpe: Path) -> Tokenizer:
    folder = bpe / request.param.removesuffix(", plain")
    return plain_tokenizer(folder) if request.param.endswith("plain") else Tokenizer.from_folder(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_encodes_as_transformers_does(text: str, ours: Tokenizer, theirs: GPT2Tokenizer) -> None:
    assert ours.encode(text) == theirs(text)["input_ids"]
    assert ours.decode(ours.encode(text)) == text


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back(text: str, ours: Tokenizer, theirs: GPT2Tokenizer) -> None:
    ids = ours.encode(text)
    assert ids == theirs(text)["input_ids"]
    assert ours.decode(ids) == text


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_ids_decode_and_stream_as_transformers_decodes(data, ours: Tokenizer, theirs: GPT2Tokenizer) -> None:
    ids = data.draw(st.lists(st.integers(0, ours.size - 1), max_size=12))
    text = ours.decode(ids)
    assert text == theirs.decode(ids)
    streamer = ours.streamer()
    pieces = [streamer.feed(token) for token in ids]
    assert "".join([*pieces, streamer.finish()]) == text


def test_half_a_character_waits_for_its_other_half(ours: Tokenizer) -> None:
    ids = ours.encode("😀")
    assert len(ids) > 1
    streamer = ours.streamer()
    assert [streamer.feed(token) for token in ids] == [""] * (len(ids) - 1) + ["😀"]
    assert streamer.finish() == ""


def test_free_ids_decode_to_nothing(ours: Tokenizer) -> None:
    assert ours.decode([ours.size + 5]) == ""


def test_a_lone_surrogate_is_refused(ours: Tokenizer) -> None:
    with pytest.raises(ValueError, match="text must be valid Unicode"):
        ours.encode("a\ud800b")


@pytest.mark.parametrize("vocabulary", [{}, {"a": 0, "b": 1}])
def test_text_is_never_lost_in_silence(vocabulary: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("")
    tokenizer = Tokenizer.from_folder(tmp_path)
    with pytest.raises(ValueError, match=r"must be a byte-level BPE with a token for each byte, got .* carry 'abc'"):
        tokenizer.encode("abc")
    if vocabulary:
        assert tokenizer.encode("abba") == [0, 1, 1, 0]


def test_a_tokenizer_larger_than_the_model_is_refused(bpe: Path) -> None:
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ ids, the model 30"):
        Tokenizer.from_folder(bpe, Config(vocab_size=30))


def test_words_that_the_model_lacks_are_refused_where_a_text_needs_it(bpe: Path) -> None:
    tokenizer = Tokenizer.from_folder(bpe, Config(vocab_size=257))
    assert tokenizer.encode("x")
    with pytest.raises(ValueError, match=r"the text holds '.*', id \d+ of the tokenizer, but the model has 257 ids"):
        tokenizer.encode("the cat sat on the mat")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no tokenizer; one of these is needed: tokenizer\.json, vocab\.json \+ merges\.txt"),
        ({"vocab.json": "{}"}, "holds no tokenizer"),
        ({"tokenizer.json": "{"}, r"tokenizer\.json is not a sound tokenizer file"),
        ({"vocab.json": "[" * 100_000, "merges.txt": ""}, "are not a sound BPE vocabulary"),
        ({"vocab.json": "[1]", "merges.txt": ""}, "are not a sound BPE vocabulary"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b"}, "are not a sound BPE vocabulary"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b c"}, "are not a sound BPE vocabulary"),
    ],
)
def test_missing_and_broken_files(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Tokenizer.from_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_the_published_vocabulary() -> None:
    folder = next(
        (
            path / "shared/gpt2-bpe"
            for path in Path(__file__).parents
            if (path / "shared/gpt2-bpe/encoder.json").is_file()
        ),
        None,
    )
    if folder is None:
        pytest.skip("OpenAI's encoder.json and vocab.bpe are not part of this repository")
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.size, tokenizer.end_of_text) == (50257, 50256)
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("The capital of France is<|endoftext|>") == [464, 3139, 286, 4881, 318, 50256]
    theirs = GPT2Tokenizer(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    for text in [*TEXTS, json.dumps(TEXTS)]:
        assert tokenizer.encode(text) == theirs(text)["input_ids"]

"""Folders with marks of every kind: the ids and texts that transformers' own tokenizer of the same folder gives."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plain import plain_tokenizer
from transformers import AutoTokenizer
from transformers.utils import logging

from gpt2_np.model.config import Config
from gpt2_np.text.dry_breakers import breaker_sequences
from gpt2_np.text.tokenizer import Tokenizer

logging.set_verbosity_error()
MARKS = ["<|im_start|>", "<pad>", "[SEP]", " <sp> ", "é", "<né 你>", "cat", "the", "<|endoftext|>", "\n\n", "<a><b>"]
FREE = ["the cat sat", " ", "  ", "\n", "\t", "naïve café", "你好 😀", "x", "'s", "12", "<", "|>", "cats"]
text = st.lists(st.sampled_from(MARKS + FREE) | st.text(max_size=5), max_size=12).map("".join)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt of a small byte-level BPE, and a config.json."""
    folder = tmp_path_factory.mktemp("parts")
    inner = tokenizers.ByteLevelBPETokenizer()
    inner.train_from_iterator(["the cat sat on the mat", "naïve café, 你好"] * 20, vocab_size=320, min_frequency=2)
    inner.save_model(str(folder))
    fields = {"model_type": "gpt2", "vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def whole(parts: Path, **changes: Any) -> dict[str, Any]:
    """A tokenizer.json of the same vocabulary, which puts a space in front and has a mark of its own."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(parts / "vocab.json"), str(parts / "merges.txt")))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", special=True)])
    inner.add_tokens([tokenizers.AddedToken("<own>", lstrip=True)])
    return json.loads(inner.to_str()) | changes


def written(content: str, **fields: Any) -> dict[str, Any]:
    return {"content": content, **fields}


def folder_of(parts: Path, target: Path, files: dict[str, Any]) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(parts, target)
    for name, content in files.items():
        (target / name).write_text(json.dumps(content))
    return target


def agree(folder: Path, *texts: str) -> None:
    """Ids, texts and marks are transformers' own, by the tokenizers library and without it."""
    theirs = AutoTokenizer.from_pretrained(folder)
    for ours in (Tokenizer.from_folder(folder), plain_tokenizer(folder)):
        for one in texts:
            ids = theirs(one)["input_ids"]
            assert ours.encode(one) == ids, one
            within = theirs(one, add_special_tokens=False)["input_ids"]
            assert ours.encode(one, add_special_tokens=False) == within, one
            assert ours.decode(ids) == theirs.decode(ids), one
        assert {i: str(t) for i, t in theirs.added_tokens_decoder.items()} == {
            i: t.content for i, t in ours.inner.get_added_tokens_decoder().items()
        }


HARD = [
    "",
    " ",
    "the cat",
    "a <pad>  b",
    "<|im_start|><|im_start|>",
    "x<pad>y <pad>z",
    " é <né 你>",
    "<own> <own>",
    "<|endoftext|> a <|endoftext|>",
    "catcat the cat",
    "[SEP]\n[SEP]",
    "naïve café 你好 😀",
    " <sp> <sp>",
]
HARD = [*HARD, "".join(HARD)]
SPECIAL = {"lstrip": True, "rstrip": True, "single_word": False, "normalized": False, "special": True}
CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "added_tokens.json": {"added_tokens.json": {"<pad>": 320, "<|im_start|>": 321}},
    "added_tokens.json, not in order": {"added_tokens.json": {"<pad>": 331, "<|im_start|>": 321, "cat": 5}},
    "added_tokens.json, one named": {
        "added_tokens.json": {"<pad>": 320, "[SEP]": 321},
        "special_tokens_map.json": {"pad_token": "<pad>"},
    },
    "added_tokens_decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "321": written("<pad>", **SPECIAL),
                "320": written("[SEP]", rstrip=True, normalized=True, special=False),
                "5": written("cat", single_word=True),
            }
        },
        "special_tokens_map.json": {"cls_token": "<|im_start|>"},
        "added_tokens.json": {"<a><b>": 330},
    },
    "special_tokens_map.json": {
        "special_tokens_map.json": {
            "pad_token": written("<pad>", lstrip=True, rstrip=False, single_word=False, normalized=False),
            "mask_token": "[SEP]",
            "additional_special_tokens": ["<|im_start|>", "é"],
        }
    },
    "additional_special_tokens": {"tokenizer_config.json": {"additional_special_tokens": ["<pad>", "<né 你>", "cat"]}},
    "extra_special_tokens, a list": {
        "tokenizer_config.json": {
            "extra_special_tokens": ["[SEP]", {"__type": "AddedToken", "content": "<pad>", "lstrip": True}],
            "additional_special_tokens": ["<|im_start|>"],
        }
    },
    "extra_special_tokens, a table": {
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "[SEP]", "boi_token": "<pad>"}}
    },
    "extra marks in the map": {
        "tokenizer_config.json": {"extra_special_tokens": ["[SEP]"]},
        "special_tokens_map.json": {"extra_special_tokens": ["<pad>", written("<|im_start|>", lstrip=True)]},
    },
    "named ones, and of other names": {
        "tokenizer_config.json": {
            "bos_token": "<|im_start|>",
            "eos_token": "[SEP]",
            "pad_token": {"__type": "AddedToken", "content": "<pad>", "rstrip": True},
            "unk_token": None,
            "image_token": "<a><b>",
            "sep_token": "é",
        }
    },
    "a space in front": {"tokenizer_config.json": {"add_prefix_space": True, "pad_token": "<pad>"}},
    "a bos in front": {"tokenizer_config.json": {"add_bos_token": True, "bos_token": "<|im_start|>"}},
    "a bos and an eos": {"tokenizer_config.json": {"add_bos_token": True, "add_eos_token": True}},
    "a bos that there is none of": {"tokenizer_config.json": {"add_bos_token": True, "bos_token": None}},
    "special tokens are split": {"tokenizer_config.json": {"split_special_tokens": True, "pad_token": "<pad>"}},
    "spaces are cleaned up": {"tokenizer_config.json": {"clean_up_tokenization_spaces": True}},
}
TOKENIZERS: dict[str, dict[str, Any] | None] = {
    "no tokenizer.json": None,
    "GPT2Tokenizer": {"tokenizer_class": "GPT2Tokenizer"},
    "GPT2TokenizerFast": {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
    "PreTrainedTokenizerFast": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("case", CASES)
def test_marks_are_transformers_own(case: str, kind: str, parts: Path, tmp_path: Path) -> None:
    files, more = copy.deepcopy(CASES[case]), TOKENIZERS[kind]
    if more is not None:
        files["tokenizer.json"] = whole(parts)
        files["tokenizer_config.json"] = more | files.get("tokenizer_config.json", {})
    agree(folder_of(parts, tmp_path / "folder", files), *HARD)


@pytest.mark.parametrize("kind", [None, "GPT2Tokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("add", [None, False, True])
def test_what_tokenizer_json_puts_around_a_text(
    kind: str | None, add: bool | None, parts: Path, tmp_path: Path
) -> None:
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [7], "tokens": ["<|endoftext|>"]}},
    }
    config = {"tokenizer_class": kind} | ({} if add is None else {"add_bos_token": add})
    files = {"tokenizer.json": whole(parts, post_processor=around), "tokenizer_config.json": config}
    agree(folder_of(parts, tmp_path / "folder", files), *HARD)


@st.composite
def folders(draw: Any) -> dict[str, Any]:
    """The files of a folder with marks drawn at random, in any of the places that marks stand in."""

    def mark(typed: bool) -> Any:
        content = draw(st.sampled_from(MARKS))
        if draw(st.booleans()):
            return content
        fields = {name: draw(st.booleans()) for name in ("lstrip", "rstrip", "single_word", "normalized")}
        return ({"__type": "AddedToken"} if typed else {}) | written(content, **fields)

    names = st.sampled_from(
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
    )
    files: dict[str, Any] = {}
    config: dict[str, Any] = {name: mark(True) for name in draw(st.sets(names, max_size=3))}
    if draw(st.booleans()):
        config["additional_special_tokens"] = [mark(True) for _ in range(draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        ids = draw(st.lists(st.integers(0, 400), max_size=3, unique=True))
        config["added_tokens_decoder"] = {
            str(one): written(draw(st.sampled_from(MARKS)), special=draw(st.booleans())) for one in ids
        }
    if draw(st.booleans()):
        config["add_prefix_space"] = draw(st.booleans())
    if draw(st.booleans()):
        config["add_bos_token"] = draw(st.booleans())
    files["tokenizer_config.json"] = config
    if draw(st.booleans()):
        files["special_tokens_map.json"] = {name: mark(False) for name in draw(st.sets(names, max_size=3))}
    if draw(st.booleans()):
        marks = draw(st.lists(st.sampled_from(MARKS), max_size=3, unique=True))
        files["added_tokens.json"] = {one: 320 + number for number, one in enumerate(marks)}
    return files


@given(files=folders(), texts=st.lists(text, min_size=1, max_size=4), kind=st.sampled_from(sorted(TOKENIZERS)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_marks_are_transformers_own(
    files: dict[str, Any], texts: list[str], kind: str, parts: Path, tmp_path: Path
) -> None:
    if TOKENIZERS[kind] is not None:
        files["tokenizer.json"] = whole(parts)
        files["tokenizer_config.json"] = TOKENIZERS[kind] | files["tokenizer_config.json"]
    folder = folder_of(parts, tmp_path / "folder", files)
    try:
        AutoTokenizer.from_pretrained(folder)
    except ValueError as error:  # transformers itself can't load a mark that its own normalising changes
        assume("Missing SpecialToken" not in str(error))
    agree(folder, *texts)


def test_a_mark_above_the_vocabulary_is_no_fault_until_a_text_holds_it(parts: Path, tmp_path: Path) -> None:
    folder = folder_of(parts, tmp_path / "folder", {"tokenizer_config.json": {"pad_token": "<pad>"}})
    mark = Tokenizer.from_folder(folder).encode("<pad>")[0]
    tokenizer = Tokenizer.from_folder(folder, Config(vocab_size=mark))
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    with pytest.raises(
        ValueError, match=f"the text holds '<pad>', id {mark} of the tokenizer, but the model has {mark} ids"
    ):
        tokenizer.encode("the <pad>")


def test_breakers_are_ids_of_the_model(parts: Path, tmp_path: Path) -> None:
    folder = folder_of(parts, tmp_path / "folder", {"tokenizer_config.json": {"pad_token": "<:>"}})
    mark = Tokenizer.from_folder(folder).encode("<:>")[0]
    found = breaker_sequences(Tokenizer.from_folder(folder, Config(vocab_size=mark)), [":"])
    assert found
    assert all(token < mark for one in found for token in one)


def test_merges_that_are_a_pointer_are_told_for_what_they_are(parts: Path, tmp_path: Path) -> None:
    folder = folder_of(parts, tmp_path / "folder", {})
    (folder / "merges.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=r"merges\.txt is a Git LFS pointer"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": []}, r"tokenizer_config\.json must hold a JSON object, got list"),
        ({"tokenizer_config.json": {"pad_token": 3}}, r"tokenizer_config\.json: pad_token must hold marks"),
        ({"tokenizer_config.json": {"add_prefix_space": "yes"}}, "add_prefix_space must be true or false, got 'yes'"),
        ({"tokenizer_config.json": {"tokenizer_class": 3}}, "tokenizer_class must be a name, got 3"),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, "added_tokens_decoder must map ids to marks"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": written("a")}}}, "id of a mark must be .* got 'x'"),
        ({"tokenizer_config.json": {"extra_special_tokens": 3}}, "extra_special_tokens must be a list of marks, got 3"),
        (
            {"special_tokens_map.json": {"eos_token": {"lstrip": True}}},
            r"special_tokens_map\.json: eos_token must hold",
        ),
        ({"added_tokens.json": {"a": None}}, r"added_tokens\.json: the id of a mark must be a whole number, got None"),
        (
            {
                "tokenizer_config.json": {
                    "clean_up_tokenization_spaces": True,
                    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
                }
            },
            "is not supported",
        ),
    ],
)
def test_marks_that_cannot_be_are_named(files: dict[str, Any], message: str, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Tokenizer.from_folder(folder_of(parts, tmp_path / "folder", files))
    assert "\n" not in str(error.value)

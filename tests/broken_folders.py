"""Model folders, and one way after another to break them: each is made from a random stream alone."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save

from gpt2_np.model.config import Config
from gpt2_np.model.params import shapes

SHAPE = {"n_embd": 4, "n_head": 2, "n_layer": 2, "n_positions": 12, "model_type": "gpt2"}
MARK = {"content": "<pad>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": True}
TEXT = "the cat<pad> sat 你é"
NAMES = """vocab_size n_positions n_embd n_layer n_head n_inner activation_function layer_norm_epsilon model_type
    scale_attn_weights scale_attn_by_inverse_layer_idx tie_word_embeddings bos_token_id eos_token_id pad_token_id
    hidden_size quantization_config rope_theta tokenizer_class added_tokens_decoder additional_special_tokens
    extra_special_tokens bos_token eos_token unk_token pad_token add_prefix_space add_bos_token split_special_tokens
    clean_up_tokenization_spaces model_specific_special_tokens image_token do_sample temperature top_k top_p typical_p
    num_beams num_beam_groups diversity_penalty length_penalty early_stopping repetition_penalty no_repeat_ngram_size
    max_length max_new_tokens min_length min_new_tokens stop_strings suppress_tokens bad_words_ids forced_eos_token_id
    sequence_bias encoder_repetition_penalty penalty_alpha dola_layers weight_map metadata dtype shape data_offsets
    model vocab merges type added_tokens post_processor pre_tokenizer decoder normalizer version truncation padding id
    content lstrip rstrip special normalized single_word guidance_scale watermarking_config min_p max_time""".split()
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    259,
    260,
    261,
    50256,
    2**31,
    2**32,
    2**63,
    2**64,
    -(2**63),
    10**30,
    0.5,
    -0.5,
    1e-45,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "x",
    "gpt2",
    "é",
    "\ud800",
    "\0",
    "<pad>",
    "a" * 3000,
    "../x",
    "/etc/passwd",
    [],
    [0],
    [[]],
    [[0]],
    ["x"],
    [None],
    {},
    {"a": 1},
    {"content": "q"},
    {"__type": "AddedToken", "content": "<pad>"},
    {"__type": "AddedToken"},
    "GPT2Tokenizer",
    "PreTrainedTokenizerFast",
    "gelu",
    "model.safetensors",
    [1, 2],
    "never",
]
DTYPES = ["F32", "F16", "BF16", "F64", "I8", "I64", "BOOL", "F8_E4M3", "X", "", "f32"]
JUNK = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"\0" * 64,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    b"<!DOCTYPE html><html>",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"{}" * 3,
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b'{"a": 1, "a": 2}',
    b"\xe9\xe8",
    "{}".encode("utf-16"),
]


def base(folder: Path, dice: random.Random) -> None:
    """A sound folder of one of three layouts."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(["<|endoftext|>", *letters, "th", "the", "at"])}
    merges = [("t", "h"), ("th", "e"), ("a", "t")]
    config = SHAPE | {
        "vocab_size": 262,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": dice.random() < 0.7,
    }
    files: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": [0], "do_sample": True, "temperature": 0.9, "max_length": 11},
        "tokenizer_config.json": {"add_prefix_space": False, "pad_token": "<pad>", "tokenizer_class": "GPT2Tokenizer"},
    }
    if dice.random() < 0.5:
        files |= {"vocab.json": vocab, "added_tokens.json": {"<pad>": 260}}
        files["special_tokens_map.json"] = {
            "pad_token": {k: v for k, v in MARK.items() if k != "special"},
            "eos_token": "<|endoftext|>",
        }
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)))
    else:
        inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
        inner.pre_tokenizer, inner.decoder = tokenizers.pre_tokenizers.ByteLevel(False), tokenizers.decoders.ByteLevel()
        files["tokenizer.json"] = json.loads(inner.to_str()) | {
            "added_tokens": [{"id": 0, **MARK, "content": "<|endoftext|>"}]
        }
        files["tokenizer_config.json"]["added_tokens_decoder"] = {"260": MARK}
        if dice.random() < 0.3:
            files["tokenizer_config.json"]["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    numbers = np.random.default_rng(0)
    fields = {name: value for name, value in config.items() if name != "model_type"}
    tensors = {
        name: numbers.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes(Config(**fields)).items()
    }
    if dice.random() < 0.7:
        (folder / "model.safetensors").write_bytes(save(tensors))
        return
    halves = dict(list(tensors.items())[:9]), dict(list(tensors.items())[9:])
    where = {name: f"part-{number}.safetensors" for number, half in enumerate(halves) for name in half}
    for number, half in enumerate(halves):
        (folder / f"part-{number}.safetensors").write_bytes(save(half))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


# ---- ways to break one ----------------------------------------------------------------------------------------------


def break_one(folder: Path, dice: random.Random) -> str:
    """Break one file of a folder in one way; returns what was done."""
    file = dice.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    ways: list[Callable[[Path, random.Random], str]] = [whole]
    if file.suffix == ".json":
        ways = [whole, *[values] * 6, text]
    elif file.suffix == ".safetensors":
        ways = [whole, *[header] * 6, stored]
    elif file.suffix == ".txt":
        ways = [whole, *[lines] * 4]
    return f"{file.name}: {dice.choice(ways)(file, dice)}"


def whole(file: Path, dice: random.Random) -> str:
    """The whole file: gone, cut, something else."""
    data, kind = (
        file.read_bytes(),
        dice.choice(["junk", "junk", "cut", "bytes", "bom", "utf-16", "gone", "folder", "loop", "more", "latin"]),
    )
    if kind in ("gone", "folder", "loop"):
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "loop":
            file.symlink_to(file.name)
        return kind
    if kind == "bytes":
        changed = bytearray(data[:4096])
        for _ in range(dice.randint(1, 8)):
            if changed:
                changed[dice.randrange(min(len(changed), 400))] = dice.randrange(256)
        data = bytes(changed) + data[4096:]
    elif kind == "utf-16":
        data = data.decode("utf-8", "replace").encode("utf-16")
    else:
        data = {
            "junk": dice.choice(JUNK),
            "cut": data[: dice.randrange(len(data) + 1)],
            "bom": b"\xef\xbb\xbf" + data,
            "more": data + dice.choice(JUNK),
            "latin": data.replace(b"a", b"\xe4", 3),
        }[kind]
    file.write_bytes(data)
    return kind


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below a JSON value; of long ones only the first."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items)[:40]:
        yield (*path, key)
        yield from places(value, (*path, key))


def change(content: Any, dice: random.Random) -> str:
    """One value of a JSON document: replaced, taken out, renamed, added, or nested deeply."""
    ways = list(places(content))
    kind = dice.choice(["set", "set", "set", "delete", "rename", "add", "add", "deep"])
    if not ways or kind == "add":
        owner: Any = content
        for key in dice.choice([(), *ways]):
            if isinstance(owner[key], dict):
                owner = owner[key]
            elif not isinstance(owner, list):
                break
            else:
                break
        if isinstance(owner, dict):
            name, value = dice.choice(NAMES), dice.choice(VALUES)
            owner[name] = value
            return f"{name} = {value!r:.40}"
        return "nothing"
    *way, last = dice.choice(ways)
    owner = content
    for key in way:
        owner = owner[key]
    if kind == "delete":
        del owner[last]
    elif kind == "rename" and isinstance(owner, dict):
        owner[dice.choice(NAMES)] = owner.pop(last)
    elif kind == "deep":
        deep: Any = 0
        for _ in range(200):
            deep = [deep]
        owner[last] = deep
    else:
        owner[last] = dice.choice(VALUES)
    return f"{kind} {'.'.join(map(str, [*way, last]))[:60]}"


def values(file: Path, dice: random.Random) -> str:
    """A JSON file's values."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return "was broken already"
    done = change(content, dice)
    file.write_text(json.dumps(content))
    return done


def text(file: Path, dice: random.Random) -> str:
    """A JSON file's text: a key twice, a number of any length."""
    data = file.read_text(errors="replace")
    key, value = (
        dice.choice(NAMES),
        dice.choice(
            ["1e999", "-1e999", "9" * 400, "NaN", '"\\ud800"', '"\\u0000"', "[" * 500 + "]" * 500, "1.5e3", "-0"]
        ),
    )
    file.write_text(data.replace("{", f'{{"{key}": {value}, "{key}": {value}, ', 1))
    return f"{key} twice, {value[:20]}"


def lines(file: Path, dice: random.Random) -> str:
    """merges.txt: a line changed."""
    content = file.read_text(errors="replace").split("\n")
    line = dice.choice(
        [
            "a b c",
            "a",
            "",
            " ",
            "q q",
            "t h",
            "the at",
            "\0 \0",
            "é é",
            "#version",
            "t  h",
            "\tt h",
            "x" * 5000,
            "th e\r",
            "\u2028 a",
        ]
    )
    content.insert(dice.randrange(len(content) + 1), line)
    file.write_text("\n".join(content))
    return repr(line)[:30]


def header(file: Path, dice: random.Random) -> str:
    """A safetensors header: an entry changed, or its length."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if dice.random() < 0.15:
        lie = dice.choice([0, 1, 7, size - 1, size + 1, len(data), 2**31, 2**32, 2**63, 2**64 - 1, 10**9])
        file.write_bytes(struct.pack("<Q", lie % 2**64) + data[8:])
        return f"a header of {lie}"
    try:
        table = json.loads(data[8 : 8 + size])
        name = dice.choice(sorted(table))
        entry = table[name]
        kind = dice.choice(["dtype", "shape", "offsets", "name", "gone", "any", "metadata", "swap"])
        if kind == "dtype":
            entry["dtype"] = dice.choice(DTYPES)
        elif kind == "shape":
            entry["shape"] = dice.choice(
                [[], [0], [2**40, 2**40], [-1], entry["shape"][::-1], [*entry["shape"], 1], [1.5], "x", None]
            )
        elif kind == "offsets":
            entry["data_offsets"] = dice.choice(
                [[0, 0], [0, 10**12], [4, 0], [-4, 0], [0], [], "x", [1, 2, 3], [0, 2**70]]
            )
        elif kind == "name":
            table[
                dice.choice(["module.", "transformer.", "transformer.transformer.", "", "x", "é", "\0"])
                + name[dice.randrange(len(name)) :]
            ] = table.pop(name)
        elif kind == "gone":
            del table[name]
        elif kind == "metadata":
            table["__metadata__"] = dice.choice(VALUES)
        elif kind == "swap":
            other = dice.choice(sorted(table))
            table[name], table[other] = table[other], table[name]
        else:
            change(table, dice)
        written = json.dumps(table, allow_nan=True).encode()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "was broken already"
    written += b" " * dice.choice([0, -len(written) % 8])
    file.write_bytes(struct.pack("<Q", len(written)) + written + data[8 + size :])
    return f"{kind} of {name}"


def stored(file: Path, dice: random.Random) -> str:
    """A safetensors file's values: some that are no finite number."""
    data = bytearray(file.read_bytes())
    if len(data) < 64:
        return "was broken already"
    place = len(data) - 4 * dice.randint(1, 8)
    data[place : place + 4] = struct.pack("<f", dice.choice([float("nan"), float("inf"), -float("inf"), 0.0, -0.0]))
    file.write_bytes(bytes(data))
    return "a value"

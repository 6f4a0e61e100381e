"""Tokenizer vectors: texts that are hard for byte-level BPE, with their ids."""

from __future__ import annotations

import json

from ..system.files import JSONObject
from ..text.gpt2 import GPT2

TEXTS = (
    "",
    " ",
    "  ",
    "The king",
    " The king  was   old.   ",
    "\n\n a\n  b\t\tc \r\n \r\r\n",
    "don't DON'T we'll I'd you're they've it's 'tis ''s ’s 'sx 'ſ 're've",  # contractions are lower case alone
    "1234567890 3.14 12,345 1st x2 a1b2 ²³ ½ Ⅻ ٣٤ १२",  # numbers of every alphabet, not digits alone
    "_snake_case __init__ a_1 $5.00 #!/bin/sh <b>C++</b> `x` \\n |~^",
    "cafe\u0301 café naïve Ærøskøbing straße ﬃ İ ª ʰ a\u0308\u0323",  # nothing is normalised
    "Ελληνικά русский עִבְרִית العربية हिन्दी नि ไทย",
    "中文字符。日本語　한국어 ｆｕｌｌ",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☺️ \U0001f9d1\u200d\U0001f680",
    "a\u00a0b\u2003c\u3000d\u200be\ufefff\u180eg\x1ch\x85i\u2028j",  # what is white space, and what only looks so
    "\x00 a\x01b\x7f\x9f\xad\ufffd\U0010ffff",
    "“quotes” — dashes … ‘single’",
    "a" * 40,
    " " * 40,
    "ThisIsCamelCase andsomewordsruntogether",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|><|endoftext|>\n<|endoftext",
)


def make(model: GPT2) -> JSONObject:
    """The texts with the ids of a model's tokenizer, and the marks that stand for one id each."""
    tokenizer = model.tokenizer
    special = {tokenizer.bytes_of(one).decode(): one for one in sorted(tokenizer.special_ids)}
    return {"special": special, "texts": [{"text": text, "ids": tokenizer.encode(text)} for text in TEXTS]}


def written(vectors: JSONObject) -> str:
    """The vectors as JSON, each text on a line of its own."""
    cases = ",\n".join(map(json.dumps, vectors["texts"]))
    return f'{{"special": {json.dumps(vectors["special"])},\n"texts": [\n{cases}\n]}}\n'


def answer(vectors: JSONObject, model: GPT2) -> list[list[int]]:
    """A model's ids for the vectors' texts."""
    return [model.tokenizer.encode(case["text"]) for case in vectors["texts"]]

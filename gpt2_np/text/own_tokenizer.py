"""A tokenizer in plain Python, which replaces ``tokenizers.Tokenizer`` if that library isn't installed.

It is a byte-level BPE with added tokens and a post-processor. The functions below are those of `tokenizers_library`,
with the same names and signatures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..display import Readable
from .added_tokens import AddedToken, AddedTokens
from .byte_level_bpe import BytePairs, pieces
from .tokenizer_marks import added_token

Around = tuple[tuple[int, ...] | None, ...]
"""What a post-processor makes of a text: ids, and None where the text's own stand."""


class NeedsLibraryError(ValueError):
    """Raised for a tokenizer that only the tokenizers library can read."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs the tokenizers library, which is not installed: pip install tokenizers")


class Encoding(NamedTuple):
    """A text's ids."""

    ids: list[int]


class OwnTokenizer(Readable):
    """The part of ``tokenizers.Tokenizer`` that `tokenizer.Tokenizer` uses, under the same names.

    `fields` are the parts of ``tokenizer.json``, for `to_str`. `space` puts a space in front of each text between added
    tokens that has none; without `cut` such a text is one piece.
    """

    def __init__(self, pairs: BytePairs, fields: dict[str, Any], *, space: bool = False, cut: bool = True) -> None:
        self.pairs, self.fields, self.space, self.cut = pairs, fields, space, cut
        self.added = AddedTokens(pairs.vocabulary)
        self.padding: dict[str, Any] | None = fields.get("padding")
        self.post_processor: Around | None = None
        self.encode_special_tokens = False

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """Return a text's ids, with those that the post-processor adds. ``UnicodeEncodeError`` for a lone surrogate."""
        text.encode()
        ids: list[int] = []
        for part in self.added.split(text, split_special=self.encode_special_tokens):
            if isinstance(part, int):
                ids.append(part)
                continue
            part = f" {part}" if self.space and not part.startswith(" ") else part
            for piece in pieces(part) if self.cut else (part,):
                ids += self.pairs.encode(piece)
        if add_special_tokens and self.post_processor is not None:
            ids = [token for around in self.post_processor for token in (ids if around is None else around)]
        return Encoding(ids)

    def add_tokens(self, tokens: Sequence[AddedToken]) -> None:
        """Add marks."""
        self.added.add(tokens)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, written in letters, or of an added token."""
        return self.added.id_of(token)

    def id_to_token(self, number: int) -> str | None:
        """Return the token, or the added token, of an id."""
        mark = self.added.by_id.get(number)
        return self.pairs.token_of.get(number) if mark is None else mark.content

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Return every token and added token with its id."""
        return self.pairs.vocabulary | (self.added.ids if with_added_tokens else {})

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Return the added tokens by their ids."""
        return dict(sorted(self.added.by_id.items()))

    def no_padding(self) -> None:
        """Ignore the padding in ``tokenizer.json``."""
        self.padding = None

    def no_truncation(self) -> None:
        """Do nothing: texts are never truncated."""

    def to_str(self) -> str:
        """Return the content of a ``tokenizer.json``."""
        marks = [
            {"id": number, "content": token.content} | token.flags()
            for number, token in self.get_added_tokens_decoder().items()
        ]
        around = self.fields.get("post_processor")
        if self.post_processor is not None and around is None:
            around = self._template(self.post_processor)
        changed = {"truncation": None, "padding": self.padding, "added_tokens": marks, "post_processor": around}
        return json.dumps(self.fields | changed, ensure_ascii=False, indent=2)

    def _template(self, around: Around) -> dict[str, Any]:
        parts, special = [], {}
        for ids in around:
            if ids is None:
                parts.append({"Sequence": {"id": "A", "type_id": 0}})
                continue
            names = [self.id_to_token(number) or "" for number in ids]
            special[names[0]] = {"id": names[0], "ids": list(ids), "tokens": names}
            parts.append({"SpecialToken": {"id": names[0], "type_id": 0}})
        pair = [{"Sequence": {"id": letter, "type_id": number}} for number, letter in enumerate("AB")]
        return {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": special}


# ---- the twins of `tokenizers_library` ------------------------------------------------------------------------------


def byte_level_bpe(table: dict[str, int], pairs: Sequence[tuple[str, str]], space: bool) -> OwnTokenizer:
    """Build a byte-level BPE as ``GPT2Tokenizer`` does. ``ValueError`` for a merge of something that is no token."""
    return OwnTokenizer(BytePairs(table, pairs), _fields(table, pairs, space), space=space)


def from_file(path: Path, content: dict[str, Any]) -> OwnTokenizer:
    """Build the tokenizer of a parsed ``tokenizer.json``, as it is.

    `NeedsLibraryError` for anything but a byte-level BPE without a normalizer; ``ValueError`` for invalid content.
    """
    if _unwrapped(content.get("normalizer"), "normalizers") is not None:
        raise NeedsLibraryError(f"{path}: normalizer {_kind(content['normalizer'])}")
    before = _unwrapped(content.get("pre_tokenizer"), "pretokenizers")
    if _kind(before) != "ByteLevel":
        raise NeedsLibraryError(f"{path}: pre_tokenizer {_kind(content.get('pre_tokenizer'))}")
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise NeedsLibraryError(f"{path}: model {_kind(model)}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise NeedsLibraryError(f"{path}: {name} {model[name]!r:.40}")
    table, merges = model.get("vocab"), model.get("merges")
    if not isinstance(table, dict) or not all(type(number) is int and number >= 0 for number in table.values()):
        raise ValueError("vocab must map tokens to ids")
    if not isinstance(merges, list):
        raise ValueError("merges must be a list of pairs of tokens")
    halves = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one or ()) for one in merges]
    for number, half in enumerate(halves, 1):
        if len(half) != 2 or not all(isinstance(token, str) for token in half):
            raise ValueError(f"merge {number} must be two tokens, got {half!r:.60}")
    pairs = BytePairs(
        table,
        [(left, right) for left, right in halves],
        ignore_merges=bool(model.get("ignore_merges")),
        unknown=model.get("unk_token"),
        fuse_unknown=bool(model.get("fuse_unk")),
    )
    space, cut = bool(before.get("add_prefix_space", True)), bool(before.get("use_regex", True))
    inner = OwnTokenizer(pairs, content, space=space, cut=cut)
    inner.post_processor = post_processor(content.get("post_processor"))
    inner.add_tokens([added_token(path, "added_tokens", one) for one in content.get("added_tokens") or ()])
    return inner


def post_processor(content: Any) -> Around | None:
    """Return what a ``post_processor`` of ``tokenizer.json`` puts around a text; None for nothing.

    `NeedsLibraryError` for kinds other than ``ByteLevel`` and one ``TemplateProcessing``, or a ``Sequence`` of them.
    """
    kind = _kind(content)
    if content is None or kind == "ByteLevel":  # which moves offsets alone
        return None
    if kind == "Sequence":
        several = [one for one in map(post_processor, content.get("processors") or ()) if one is not None]
        if len(several) > 1:
            raise NeedsLibraryError("post_processor Sequence")
        return several[0] if several else None
    if kind != "TemplateProcessing":
        raise NeedsLibraryError(f"post_processor {kind}")
    try:
        return tuple(_part(part, content.get("special_tokens")) for part in content["single"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("TemplateProcessing must hold a single of special tokens with ids, and Sequence A") from None


def add(inner: OwnTokenizer, tokens: Sequence[AddedToken]) -> None:
    """Add marks."""
    inner.add_tokens(tokens)


def template(first: tuple[str, int | None] | None, last: tuple[str, int | None] | None) -> Around:
    """Put a special token with its id before every text, and one after it. ``ValueError`` for one without an id."""

    def ids(mark: tuple[str, int | None] | None) -> Around:
        if mark is None:
            return ()
        if mark[1] is None:
            raise ValueError(f"{mark[0]!r:.60} has no id")
        return ((mark[1],),)

    return (*ids(first), None, *ids(last))


def _part(part: Any, special: Any) -> tuple[int, ...] | None:
    if "SpecialToken" in part:
        return tuple(int(number) for number in special[part["SpecialToken"]["id"]]["ids"])
    if part["Sequence"]["id"] != "A":
        raise ValueError
    return None


def _kind(part: Any) -> str | None:
    return part.get("type") if isinstance(part, Mapping) else None


def _unwrapped(part: Any, name: str) -> Any:
    """Return a part of ``tokenizer.json``; the only element of a ``Sequence`` instead of that, None for an empty
    one.
    """
    while _kind(part) == "Sequence" and isinstance(part.get(name), list) and len(part[name]) < 2:
        part = part[name][0] if part[name] else None
    return part


def _fields(table: dict[str, int], pairs: Sequence[tuple[str, str]], space: bool) -> dict[str, Any]:
    """The parts of a ``tokenizer.json`` of GPT-2's kind."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": True}
    settings = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    flags = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    model = {"type": "BPE"} | settings | flags | {"vocab": table, "merges": [list(pair) for pair in pairs]}
    parts: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": []}
    decoder = byte_level | {"add_prefix_space": True}
    return parts | {
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }

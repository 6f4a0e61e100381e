"""A tokenizer's special and added tokens, such as ``<|endoftext|>``, collected as transformers 5 does.

They are defined in up to five places: ``added_tokens_decoder``, ``bos_token`` and the like, and
``extra_special_tokens`` (formerly ``additional_special_tokens``) in ``tokenizer_config.json``;
``special_tokens_map.json`` and ``added_tokens.json``, which count if there is no ``added_tokens_decoder``; and
``tokenizer.json`` itself. The order in which they are added determines their ids, and the last definition of a token
determines how it matches and which white space it absorbs. The source is ``PreTrainedTokenizerBase._from_pretrained``
and ``TokenizersBackend.__init__`` of transformers 5.24.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..system.files import read_object
from .added_tokens import AddedToken

END_OF_TEXT = "<|endoftext|>"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FIELDS = {"content": str, "single_word": bool, "lstrip": bool, "rstrip": bool, "normalized": bool, "special": bool}
Mark = str | AddedToken


@dataclass
class Marks:
    """Added tokens by their origin: those with ids of their own, named ones, and the rest."""

    by_id: dict[int, AddedToken] = field(default_factory=dict)
    named: dict[str, Mark] = field(default_factory=dict)
    extra: list[Mark] = field(default_factory=list)

    def to_add(self, here: list[str]) -> list[AddedToken]:
        """Return what is to be added, in order, to a tokenizer that has the tokens `here`."""
        adding: list[Mark] = [token for _, token in sorted(self.by_id.items())]
        known = {*here, *map(str, adding)}
        for mark in [*self.named.values(), *self.extra]:
            if str(mark) not in known and mark not in adding:
                adding.append(mark)
        names = {str(mark) for mark in self.named.values()}
        for mark in adding:
            if isinstance(mark, AddedToken) and not mark.special and str(mark) in names:
                mark.special = True
        return [AddedToken(mark, special=True) if isinstance(mark, str) else mark for mark in adding]


def marks(folder: Path, settings: dict[str, Any], whole: dict[str, Any] | None, gpt2s: bool) -> Marks:
    """Return the added tokens of a folder whose ``tokenizer_config.json`` holds `settings` and ``tokenizer.json`` holds
    `whole`.

    `gpt2s` says whether transformers uses its GPT-2 class, for which bos, eos and unk are ``<|endoftext|>`` by default.
    ``ValueError`` names the file and the key of an invalid token.
    """
    settings, source = dict(settings), folder / "tokenizer_config.json"
    if "additional_special_tokens" in settings and not settings.get("extra_special_tokens"):
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    own = {name: settings.pop(name) for name in list(settings) if _is_other_text(name, settings[name])}
    if isinstance(settings.get("extra_special_tokens"), dict):
        own |= settings.pop("extra_special_tokens")
    own = own or settings.pop("model_specific_special_tokens", None) or {}
    if not isinstance(own, dict):
        raise ValueError(f"{source}: model_specific_special_tokens must map names to marks, got {own!r:.60}")
    found = Marks()
    if "added_tokens_decoder" in settings:
        found.by_id = _decoder(source, settings["added_tokens_decoder"])
    else:
        origin = _merge_map(folder / "special_tokens_map.json", settings, own)
        found.by_id = _added(folder / "added_tokens.json", settings) | _in_tokenizer(folder, whole)
        source = origin or source
    by_text = {str(token): token for token in found.by_id.values()}
    if gpt2s:
        settings = dict.fromkeys(("unk_token", "bos_token", "eos_token"), END_OF_TEXT) | settings
    for name in NAMED:
        value = settings.get(name)
        if value is not None:
            mark = _mark(source, name, value)
            found.named[name] = by_text.get(str(mark), mark)
    others = {name: value for name, value in settings.items() if _is_other_mark(name, value)}
    for name, value in (others | own).items():
        found.named[name] = _mark(source, name, value)
    extra = settings.get("extra_special_tokens", settings.get("additional_special_tokens"))
    if extra is not None and not isinstance(extra, list):
        raise ValueError(f"{source}: extra_special_tokens must be a list of marks, got {extra!r:.60}")
    found.extra = [_mark(source, "extra_special_tokens", one) for one in extra or []]
    return found


def _is_other_text(name: str, value: Any) -> bool:
    return name.endswith("_token") and name not in NAMED and isinstance(value, str)


def _is_other_mark(name: str, value: Any) -> bool:
    typed = isinstance(value, AddedToken) or (isinstance(value, dict) and value.get("__type") == "AddedToken")
    return _is_other_text(name, value) or (name.endswith("_token") and name not in NAMED and typed)


def _decoder(source: Path, table: Any) -> dict[int, AddedToken]:
    """Read ``added_tokens_decoder``: ids, as text, to tokens."""
    if not isinstance(table, dict):
        raise ValueError(f"{source}: added_tokens_decoder must map ids to marks, got {table!r:.60}")
    return {_id(source, number): added_token(source, "added_tokens_decoder", value) for number, value in table.items()}


def _merge_map(path: Path, settings: dict[str, Any], own: dict[str, Any]) -> Path | None:
    """Merge ``special_tokens_map.json`` into `settings`, over what is there; return the file if there is one."""
    if not path.is_file():
        return None
    for name, value in read_object(path).items():
        if name == "extra_special_tokens" and isinstance(value, list):
            known = list(settings.get(name) or [])
            value = [*known, *(one for one in (_special(path, name, one) for one in value) if one not in known)]
        elif name != "extra_special_tokens" and isinstance(value, dict):
            value = _special(path, name, value)
        settings[name] = value
    if isinstance(settings.get("extra_special_tokens"), dict):
        own |= settings.pop("extra_special_tokens")
    return path


def _added(path: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Read ``added_tokens.json``: texts to ids; a token is special if a special token has its text."""
    if not path.is_file():
        return {}
    special = {str(settings[name]) for name in NAMED if settings.get(name)}
    extra = settings.get("extra_special_tokens")
    special |= {str(one) for one in extra} if isinstance(extra, list) else set()
    found = {}
    for text, number in read_object(path).items():
        written = {"content": text, "normalized": text not in special, "special": text in special}
        found[_id(path, number)] = added_token(path, text, written)
    return found


def _in_tokenizer(folder: Path, whole: dict[str, Any] | None) -> dict[int, AddedToken]:
    """Return the added tokens in ``tokenizer.json``."""
    source = folder / "tokenizer.json"
    listed = [] if whole is None else whole.get("added_tokens", [])
    if not isinstance(listed, list):
        raise ValueError(f"{source}: added_tokens must be a list of marks, got {listed!r:.60}")
    found = {}
    for one in listed:
        if not isinstance(one, dict):
            raise ValueError(f"{source}: added_tokens must be a list of marks, got {one!r:.60} in it")
        found[_id(source, one.get("id"))] = added_token(source, "added_tokens", one)
    return found


def _id(source: Path, number: Any) -> int:
    try:
        return int(str(number))
    except ValueError:
        raise ValueError(f"{source}: the id of a mark must be a whole number, got {number!r:.60}") from None


def _special(source: Path, name: str, value: Any) -> Any:
    return added_token(source, name, {**value, "special": True}) if isinstance(value, dict) else value


def _mark(source: Path, name: str, value: Any) -> Mark:
    """Return a token that is given as a text, or as an object; ``ValueError`` for anything else."""
    if isinstance(value, AddedToken):
        return value
    return _text(source, name, value) if isinstance(value, str) else added_token(source, name, value)


def _text(source: Path, name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{source}: {name} must be valid Unicode, got a lone surrogate") from None
    return text


def added_token(source: Path, name: str, value: Any) -> AddedToken:
    """Return a token that is given as an object. Fields that the library doesn't know are ignored, as there."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError(f"{source}: {name} must hold marks: texts, or objects with a content, got {value!r:.60}")
    known = {key: value[key] for key in FIELDS if key in value}
    for key, one in known.items():
        if not isinstance(one, FIELDS[key]):
            raise ValueError(f"{source}: {key} of a mark must be {FIELDS[key].__name__}, got {one!r:.60}")
    return AddedToken(_text(source, name, known.pop("content")), **known)

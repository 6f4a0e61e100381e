"""From a model's folder to the tokenizer that transformers 5 builds from it.

transformers reads a GPT-2 folder with one of two classes. ``GPT2Tokenizer`` takes the vocabulary and the merges, from
``tokenizer.json`` if it exists and else from ``vocab.json`` and ``merges.txt``, and builds the rest itself, so that
``tokenizer_config.json`` says whether a space is put in front. ``TokenizersBackend`` (formerly
``PreTrainedTokenizerFast``) takes ``tokenizer.json`` as it is. Both then add special tokens on top (see
`tokenizer_marks`).

The ``tokenizers`` library builds the tokenizer, or `own_tokenizer` if it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..system.files import panics_as_errors, pretender, read_json, read_object, read_text
from .own_tokenizer import NeedsLibraryError
from .tokenizer_marks import Marks, marks

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
CORRUPTING = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
LONGEST = 300  # characters of the library's message that an error quotes
LARGEST_ID = 2**32 - 1  # the tokenizers library's ids are unsigned 32-bit numbers
Result = TypeVar("Result")


class Inner(Protocol):
    """The interface of a built tokenizer: ``tokenizers.Tokenizer``, or our own."""

    post_processor: Any
    encode_special_tokens: bool

    @property
    def padding(self) -> dict[str, Any] | None:
        """The padding settings of ``tokenizer.json``."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Any:
        """Return a text's ids, as ``.ids``."""
        ...

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token."""
        ...

    def id_to_token(self, number: int) -> str | None:
        """Return the token of an id."""
        ...

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Return every token with its id."""
        ...

    def get_added_tokens_decoder(self) -> Mapping[int, Any]:
        """Return the added tokens by their ids."""
        ...

    def no_padding(self) -> None:
        """Switch padding off."""
        ...

    def no_truncation(self) -> None:
        """Switch truncation off."""
        ...

    def to_str(self) -> str:
        """Return the content of a ``tokenizer.json``."""
        ...


def library() -> Any:
    """Return the module that builds tokenizers: `tokenizers_library`, or its twin `own_tokenizer` if the library can't
    be loaded.
    """
    try:
        from . import tokenizers_library as found
    except ImportError:
        from . import own_tokenizer

        return own_tokenizer
    return found


def build(folder: Path) -> Inner:
    """Build the tokenizer of a folder, with its special tokens and its post-processor.

    The files are, in this order: ``tokenizer.json``; ``vocab.json`` with ``merges.txt``; OpenAI's ``encoder.json`` with
    ``vocab.bpe``. ``FileNotFoundError`` when none is there; ``ValueError``, in one line that names the file, when one
    is broken.
    """
    settings_file, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    settings = read_object(settings_file) if settings_file.is_file() else {}
    if settings.get("clean_up_tokenization_spaces") and settings.get(CORRUPTING):
        raise ValueError(f"{settings_file}: {CORRUPTING} is not supported; decoded text would not be what was written")
    rebuilt = _is_gpt2s(folder, settings)
    if whole.is_file():
        content = guarded(f"{whole} is not a sound tokenizer file", lambda: read_object(whole))
        inner = _from_parts(whole, content, settings) if rebuilt else _as_it_is(whole, content)
    else:
        content, rebuilt = None, True
        inner = _from_pair(folder, settings)
    found = marks(folder, settings, content, rebuilt)
    if content is not None and not rebuilt and inner.padding is not None:
        found.named.setdefault("pad_token", inner.padding["pad_token"])
    _add(inner, found, settings, settings_file, has_file=content is not None)
    # Some errors in a file only appear at the first text.
    where = folder if content is None else whole
    guarded(f"{where} is not a sound tokenizer file", lambda: inner.encode("a b", add_special_tokens=False))
    return inner


def guarded(fault: str, make: Callable[[], Result]) -> Result:
    """Return the result of `make`; any error of the tokenizers library becomes a ``ValueError`` that begins with
    `fault`.

    The library raises plain ``Exception``, and its Rust code may panic.
    """
    try:
        with panics_as_errors():
            return make()
    except NeedsLibraryError:
        raise
    except Exception as error:
        raise ValueError(f"{fault}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return an error's first line, or its beginning: the library lists every alternative that it tried, and quotes
    tokens.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _is_gpt2s(folder: Path, settings: dict[str, Any]) -> bool:
    """Tell whether transformers' ``AutoTokenizer`` uses ``GPT2Tokenizer``, which builds all but the vocabulary anew."""
    name = settings.get("tokenizer_class")
    if name is None and (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        name = config.get("tokenizer_class") if isinstance(config, dict) else None
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: tokenizer_class must be a name, got {name!r}")
    return not name or name.removesuffix("Fast") == "GPT2Tokenizer"


def _as_it_is(path: Path, content: dict[str, Any]) -> Inner:
    made: Inner = guarded(f"{path} is not a sound tokenizer file", lambda: library().from_file(path, content))
    return made


def _from_parts(path: Path, content: dict[str, Any], settings: dict[str, Any]) -> Inner:
    """Read ``tokenizer.json`` as ``GPT2Tokenizer`` does: its vocabulary, merges and post-processor; the rest is
    GPT-2's.
    """
    fault = f"{path} is not a sound tokenizer file"
    model = content.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise ValueError(f"{fault}: GPT-2's model must be a BPE, got {kind!r}")
    table, merges = model.get("vocab"), model.get("merges")
    if isinstance(table, list):  # transformers uses a list's indices as ids
        table = {str(word[0] if isinstance(word, list) and word else word): place for place, word in enumerate(table)}
    if not isinstance(merges, list):
        raise ValueError(f"{fault}: merges must be a list, got {type(merges).__name__}")
    pairs = [tuple(one.split(" ")) if isinstance(one, str) else one for one in merges]
    inner = _gpt2s(fault, table, pairs, _space(path, settings))
    around = content.get("post_processor")
    if around is not None:
        inner.post_processor = guarded(fault, lambda: library().post_processor(around))
    return inner


def _from_pair(folder: Path, settings: dict[str, Any]) -> Inner:
    for vocab, merges in PAIRS:
        if (folder / vocab).is_file() and (folder / merges).is_file():
            fault = f"{folder / vocab} and {merges} are not a sound BPE vocabulary"
            if (words := pretender(folder / merges)) is not None:
                raise ValueError(words)
            table = guarded(fault, partial(read_json, folder / vocab))
            lines = guarded(fault, partial(read_text, folder / merges)).split("\n")
            pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
            return _gpt2s(fault, table, pairs, _space(folder / vocab, settings))
    wanted = ", ".join(["tokenizer.json", *(" + ".join(pair) for pair in PAIRS)])
    raise FileNotFoundError(f"{folder} holds no tokenizer; one of these is needed: {wanted}")


def _space(path: Path, settings: dict[str, Any]) -> bool:
    space = settings.get("add_prefix_space")
    if space is not None and not isinstance(space, bool):
        where = path.parent / "tokenizer_config.json"
        raise ValueError(f"{where}: add_prefix_space must be true or false, got {space!r:.60}")
    return bool(space)


def _gpt2s(fault: str, table: Any, pairs: list[Any], space: bool) -> Inner:
    """Build a byte-level BPE as ``GPT2Tokenizer`` does; ``ValueError`` names the first invalid entry or merge."""
    if not isinstance(table, dict):
        raise ValueError(f"{fault}: the vocabulary must map tokens to ids, got {type(table).__name__}")
    for word, number in table.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST_ID:
            rule = f"an id must be a whole number from 0 to {LARGEST_ID}"
            raise ValueError(f"{fault}: {rule}, got {number!r:.40} for {word!r:.40}")
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(half, str) for half in pair):
            raise ValueError(f"{fault}: merge {number} must be two tokens, got {pair!r:.60}")
    made: Inner = guarded(fault, lambda: library().byte_level_bpe(table, [(a, b) for a, b in pairs], space))
    return made


def _add(inner: Inner, found: Marks, settings: dict[str, Any], path: Path, *, has_file: bool) -> None:
    """Add the special tokens, and what ``add_bos_token`` and ``add_eos_token`` put around a text."""
    here = [token.content for _, token in sorted(inner.get_added_tokens_decoder().items())]
    guarded(f"{path}: marks can't be added", lambda: library().add(inner, found.to_add(here)))
    inner.encode_special_tokens = bool(settings.get("split_special_tokens"))
    # Where there is a tokenizer.json, only its own post-processor counts.
    asked = [name for name in ("add_bos_token", "add_eos_token") if name in settings and not has_file]
    if inner.post_processor is not None and not asked:
        return
    around = {}
    for name in asked:
        mark = found.named.get(name.removeprefix("add_"))
        if settings[name] and mark is not None:
            around[name] = str(mark)
    first, last = (
        (around[name], inner.token_to_id(around[name])) if around.get(name) else None
        for name in ("add_bos_token", "add_eos_token")
    )
    inner.post_processor = guarded(f"{path}: add_bos_token", lambda: library().template(first, last))

"""Text ↔ ids: GPT-2's byte-level BPE, run by the ``tokenizers`` library (Radford et al. 2019, section 2.2)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from .config import Config
from .files import panics_as_errors

END_OF_TEXT = "<|endoftext|>"
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class Tokenizer:
    """Encodes any text without loss, and decodes any ids; ``<|endoftext|>`` in a text is its one special id."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()
        self.inner = inner
        self._bytes_of: dict[int, bytes] = {}
        vocabulary = inner.get_vocab(with_added_tokens=False)
        self._lossless = all(letter in vocabulary for letter in BYTE_OF_LETTER)
        self._special = {i: token.content.encode() for i, token in inner.get_added_tokens_decoder().items()}

    @classmethod
    def from_folder(cls, folder: Path, config: Config | None = None) -> Tokenizer:
        """The tokenizer of a model's folder, from whichever files are there.

        They are, in this order: ``tokenizer.json``; ``vocab.json`` with ``merges.txt``; OpenAI's ``encoder.json``
        with ``vocab.bpe``. ``FileNotFoundError`` when none is; ``ValueError`` when one is broken, or makes ids that
        the model of `config` doesn't have.
        """
        whole = folder / "tokenizer.json"
        if whole.is_file():
            tokenizer = cls(_read(whole))
        else:
            for vocab, merges in PAIRS:
                if (folder / vocab).is_file() and (folder / merges).is_file():
                    tokenizer = cls(_build(folder / vocab, folder / merges))
                    break
            else:
                wanted = ", ".join(["tokenizer.json", *(" + ".join(pair) for pair in PAIRS)])
                raise FileNotFoundError(f"{folder} holds no tokenizer; one of these is needed: {wanted}")
        if config is not None and tokenizer.size > config.vocab_size:
            raise ValueError(f"{folder}: the tokenizer has {tokenizer.size} ids, the model {config.vocab_size}")
        return tokenizer

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def end_of_text(self) -> int | None:
        """The id of ``<|endoftext|>``; None where the vocabulary has none."""
        return self.inner.token_to_id(END_OF_TEXT)

    @property
    def special_ids(self) -> list[int]:
        """The ids of marks, which are no text: ``<|endoftext|>`` and what a tokenizer has added of its kind."""
        return [token for token, added in self.inner.get_added_tokens_decoder().items() if added.special]

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Nothing is added at its ends.

        ``ValueError`` for text that UTF-8 can't carry, or that the vocabulary can't: it may lack some bytes.
        """
        try:
            ids: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            raise ValueError("text must be valid Unicode, got a lone surrogate") from None
        if not self._lossless and b"".join(map(self.bytes_of, ids)) != text.encode():
            raise ValueError(
                f"the tokenizer must be a byte-level BPE with a token for each byte, got one that can't "
                f"carry {text[:40]!r}"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, ``<|endoftext|>`` included; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.bytes_of(token) for token in ids).decode("utf-8", errors="replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Each id's own text: for tables and pictures."""
        return [self.bytes_of(token).decode("utf-8", errors="replace") for token in ids]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that one id stands for; none for an id that the vocabulary leaves free."""
        if token in self._special:
            return self._special[token]
        if token not in self._bytes_of:
            letters = self.inner.id_to_token(int(token)) or ""
            self._bytes_of[token] = b"".join(
                bytes([BYTE_OF_LETTER[letter]]) if letter in BYTE_OF_LETTER else letter.encode() for letter in letters
            )
        return self._bytes_of[token]

    def streamer(self) -> TextStreamer:
        """Turns ids into text piece by piece, as they come."""
        return TextStreamer(self)


class TextStreamer:
    """Text from ids as they come: half a character waits for its other half."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The text that is certain once this id is known; may be empty."""
        return self._decoder.decode(self.tokenizer.bytes_of(token))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


def _letters() -> dict[str, int]:
    """The letter that stands for each byte in a BPE file → the byte (``bytes_to_unicode`` of OpenAI's encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF_LETTER = _letters()


def _read(path: Path) -> tokenizers.Tokenizer:
    try:
        with panics_as_errors():
            return _tried(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is not a sound tokenizer file: {first_line(error)}") from None


def _tried(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer that has encoded something: what a file gets wrong may show no earlier."""
    inner.no_padding()
    inner.no_truncation()
    inner.encode("a b", add_special_tokens=False)
    return inner


def first_line(error: Exception) -> str:
    """An error's first line: the library's longer ones list every alternative that it tried."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _build(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    try:
        table = json.loads(vocab.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").split("\n")
        halves = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        pairs = [(left, right) for left, right in halves]
        with panics_as_errors():
            inner = tokenizers.Tokenizer(tokenizers.models.BPE(table, pairs))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{vocab} and {merges.name} are not a sound BPE vocabulary: {first_line(error)}") from None
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    if END_OF_TEXT in table:
        inner.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return inner

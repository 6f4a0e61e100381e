"""DRY's sequence breakers: texts as the sequences of ids that can spell them."""

from __future__ import annotations

from collections.abc import Sequence

from .tokenizer import Tokenizer

DEFAULT = ("\n", ":", '"', "*")  # llama.cpp's
LONGEST = 40  # bytes of a breaker that are used
LONGEST_TAIL = 20  # ids that may follow the first


def breaker_sequences(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return every sequence of ids that spells one of the texts: llama.cpp's ``get_overlapping_token_sequences``.

    An id whose bytes contain a whole text is a sequence by itself; an id that ends with the beginning of a text is one
    together with the ids of the rest. ``ValueError`` for an empty text.
    """
    last = tokenizer.ids_of_model
    words = {token: tokenizer.bytes_of(token) for token in tokenizer.ids if last is None or token < last}
    found: list[tuple[int, ...]] = []
    for text in texts:
        if not isinstance(text, str) or not text:
            raise ValueError(f"dry_sequence_breakers must be texts of at least one character, got {text!r}")
        breaker = text.encode()[:LONGEST]
        tails = [tail(tokenizer, breaker, split) for split in range(len(breaker))]
        for token, word in words.items():
            if breaker in word:
                found.append((token,))
                continue
            for split in range(1, len(breaker)):
                following = tails[split]
                if following and word.endswith(breaker[:split]):
                    found.append((token, *following))
    return list(dict.fromkeys(found))


def tail(tokenizer: Tokenizer, breaker: bytes, split: int) -> list[int]:
    """Return the ids of the bytes after the first `split`; none if that would divide a character."""
    try:
        return tokenizer.encode(breaker[split:].decode(), add_special_tokens=False)[:LONGEST_TAIL]
    except UnicodeDecodeError:
        return []

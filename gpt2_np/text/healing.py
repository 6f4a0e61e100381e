"""Token healing: the last token of a prompt is removed and regrown, since a prompt may end inside a token.

It follows transformers' ``heal_tokens`` (Lundberg 2023, "The Art of Prompt Design"). In a prompt that ends in "http:",
the last token ":" may become "://", which the model has seen far more often. Longer tokens are found by their spelling
in the vocabulary, where a space isn't written as one: so a last token that begins with a space, or isn't ASCII, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import decoders
from decoders import Options

from .generation_config import FILE
from .tokenizer import Tokenizer

LONGER, SAME = 10.0, 11.0  # added to the score of a longer token, and of the token itself


def wanted(names: dict[str, Any], settings: Mapping[str, Any]) -> bool:
    """Remove the option ``token_healing`` from `names` and return it, or what generation_config.json says of it.

    ``ValueError`` for anything but a bool.
    """
    asked, where = names.pop("token_healing", None), ""
    if asked is None and names.get("generation_config") is True:
        asked, where = settings.get("token_healing"), f"{FILE}: "
    if asked is not None and not isinstance(asked, bool):
        raise ValueError(f"{where}token_healing must be True or False, got {asked!r:.100}")
    return bool(asked)


def healed(ids: Sequence[int], tokenizer: Tokenizer, start: Callable[[], Any], vocabulary: int) -> list[int]:
    """Return a prompt's ids with the last one regrown; `start` makes a stepper of the model for a given number of ids.

    As in transformers, the prompt is tokenized again, without special tokens and without white space at its ends.
    Nothing more happens if it is a single token, or if no token of the model begins like its last one.
    """
    marks = set(tokenizer.special_ids)
    text = tokenizer.decode([token for token in ids if token not in marks]).strip()
    again = tokenizer.encode(text) if text else list(ids)
    if len(again) < 2:
        return again
    *before, last = again
    spelling = tokenizer.decode([last])
    longer = [
        token
        for word, token in tokenizer.inner.get_vocab(with_added_tokens=True).items()
        if word.startswith(spelling) and token < vocabulary
    ]
    if last not in longer or len(longer) == 1:
        return again
    bias: dict[tuple[int, ...], float] = {(token,): SAME if token == last else LONGER for token in longer}
    (found,) = decoders.generate(start(), [before], Options(max_new_tokens=1, sequence_bias=bias))
    return [*before, *found.ids]

"""What kind of value each option takes: NumPy's scalars and arrays become Python's, all else is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import require

if TYPE_CHECKING:
    from .options import Options

FLAGS = ("do_sample", "renormalize_logits", "stochastic_beams", "exhaustive", "remove_invalid_values", "output_scores")
NEEDED = ("max_new_tokens", "num_beams", "num_return_sequences", "num_beam_groups", "top_logprobs", "rng", *FLAGS)
ONE_ID = ("pad_token_id", "forced_bos_token_id")
ONE_OR_MORE = ("eos_token_id", "forced_eos_token_id")
IDS = ("suppress_tokens", "begin_suppress_tokens")
PHRASES = ("bad_words_ids", "dry_sequence_breakers")
CALLABLES = ("prefix_allowed_tokens_fn", "unconditional")


def plain(value: Any) -> Any:
    """NumPy's scalars and arrays, inside lists too, as Python's numbers and lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, list) and any(isinstance(one, (np.generic, np.ndarray)) for one in value):
        return [plain(one) for one in value]
    return value


def is_id(value: Any) -> bool:
    """Whether a value can be a token's id."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def is_list(value: Any) -> bool:
    """Whether a value is a list or a tuple."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def is_ids(value: Any) -> bool:
    """Whether a value is a list of ids."""
    return is_list(value) and all(is_id(one) for one in value)


def check(options: Options) -> None:
    """``ValueError``, in one line, for the first value of a wrong kind."""
    for name in NEEDED:
        require(getattr(options, name) is not None, f"{name} must have a value", None)
    for name in FLAGS:
        require(isinstance(getattr(options, name), bool), f"{name} must be True or False", getattr(options, name))
    kinds: list[tuple[Sequence[str], Any, str]] = [
        (ONE_ID, is_id, "an id"),
        (ONE_OR_MORE, lambda value: is_id(value) or is_ids(value), "an id or a list of ids"),
        (IDS, is_ids, "a list of ids"),
        (PHRASES, lambda value: is_list(value) and all(is_ids(one) for one in value), "a list of lists of ids"),
        (
            ("negative_prompt_ids",),
            lambda value: is_ids(value) or (is_list(value) and all(map(is_ids, value))),
            "a list of ids, or one for each prompt",
        ),
        (CALLABLES, callable, "a callable"),
        (("uniforms",), lambda value: is_list(value) and all(map(is_number, value)), "a list of numbers"),
        (("order",), is_list, "a list of names"),
        (("rng", "profile"), lambda value: isinstance(value, str), "a name"),
        (("logit_bias",), is_logit_bias, "a mapping of ids to numbers"),
        (("sequence_bias",), is_sequence_bias, "a mapping of tuples of ids to numbers, or a list of such pairs"),
        (("exponential_decay_length_penalty",), is_decay, "a pair: a whole number and a number above 0"),
        (("force_words_ids",), is_list, "a list of phrases (lists of ids) or of lists of phrases"),
        (("dola_layers",), lambda value: isinstance(value, str) or is_list(value), "'low', 'high' or a list of layers"),
        (("early_stopping",), lambda value: isinstance(value, (bool, str)), "True, False or 'never'"),
    ]
    for names, suits, kind in kinds:
        for name in names:
            value = getattr(options, name)
            if value is not None:
                require(suits(value), f"{name} must be {kind}", value)


def is_logit_bias(value: Any) -> bool:
    """Whether a value maps ids to numbers."""
    return isinstance(value, Mapping) and all(is_id(token) and is_number(bias) for token, bias in value.items())


def is_sequence_bias(value: Any) -> bool:
    """Whether a value maps sequences of ids, not empty, to numbers."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif is_list(value) and all(is_list(pair) and len(pair) == 2 for pair in value):
        pairs = list(value)
    else:
        return False
    return all(is_ids(sequence) and len(sequence) > 0 and is_number(bias) for sequence, bias in pairs)


def is_decay(value: Any) -> bool:
    """Whether a value is a start and a factor."""
    return bool(
        is_list(value)
        and len(value) == 2
        and isinstance(value[0], int)
        and not isinstance(value[0], bool)
        and is_number(value[1])
        and 0 < value[1] < float("inf")
    )

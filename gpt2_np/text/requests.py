"""From callers' requests to decoders' options: prompts and texts in options become ids, and settings are filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decoders import Options
from decoders.base.errors import suggestion
from decoders.base.value_types import is_whole
from decoders.methods import option
from decoders.options import DEFAULTS

from ..display import Readable
from ..model.config import Config
from ..model.ids import check_ids, check_prompt, whole_numbers
from . import constraints, dry_breakers, generation_config
from .stopping import banned_strings, stop_strings
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from decoders.fields import Names

    class Request(Names, total=False):
        """The options of `GPT2.generate` by name: those of `decoders.Options`, and those that take text."""

        stop_strings: str | Sequence[str] | None
        stopping_criteria: Criterion | Sequence[Criterion] | None
        generation_config: bool
        token_healing: bool
        regex: str | None
        json_schema: str | bool | Mapping[str, Any] | None
        choice: Sequence[str] | None
        grammar: str | None


# The options that are none of `decoders.Options`.
IN_TEXT = ("stop_strings", "stopping_criteria", "generation_config", "token_healing", *constraints.KINDS)
Prompt = str | Sequence[int]
Criterion = Callable[[Sequence[int], Sequence[int]], bool]


@dataclass(frozen=True, repr=False)
class Reader(Readable):
    """Reads requests for one model, given its configuration, its settings, and functions that provide the rest.

    `tokenizer` and `vocabulary` are called only if a request holds text, or a constraint on it. `start` makes a stepper
    of the model, for guidance, and `first_layers` one of its first layers. `assistant` makes one of the model that
    ``assistant_model`` names or is.
    """

    config: Config
    settings: Mapping[str, Any]
    tokenizer: Callable[[], Tokenizer]
    vocabulary: Callable[[], constraints.Vocabulary]
    start: Callable[[], Any]
    assistant: Callable[[Any], Any]
    first_layers: Callable[[int], Any]

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text unless ``eos_token_id`` is given."""
        return generation_config.ends(self.settings, self.config.vocab_size)

    def prompt(self, prompt: Prompt) -> list[int]:
        """Return a prompt's ids; an empty one starts from ``<|endoftext|>``. ``ValueError`` for ids that can't be
        fed.
        """
        ids = self.tokenizer().encode(prompt) if isinstance(prompt, str) else whole_numbers(prompt)
        if not ids:
            return [self.first()]
        if len(ids) > self.config.n_positions:
            raise ValueError(
                f"the prompt must have at most {self.config.n_positions} tokens, the model's context, got {len(ids)}"
            )
        check_ids(ids, self.config)
        return ids

    def studied(self, prompt: Any, prepend_bos: bool) -> Any:
        """Return a text's ids, after begin-of-text if that is asked for or the text is empty; see `GPT2.to_ids`."""
        if isinstance(prompt, (list, tuple)) and any(isinstance(one, str) for one in prompt):
            return [self.studied(one, prepend_bos) for one in prompt]
        if not isinstance(prompt, str):
            return prompt
        ids = self.tokenizer().encode(prompt) if prompt else []
        return self.prompt([self.first(), *ids] if prepend_bos or not ids else ids)

    def first(self) -> int:
        """Return the id that an empty prompt starts from. ``ValueError`` if the model has none."""
        start = generation_config.start(self.settings, self.config)
        if start is None:
            raise ValueError("an empty prompt needs a model with a bos_token_id or eos_token_id to start from")
        if not 0 <= start < self.config.vocab_size:
            rule = f"bos_token_id must be between 0 and {self.config.vocab_size - 1} for an empty prompt to start from"
            raise ValueError(f"{rule}, got {start}")
        return start

    def options(self, names: Mapping[str, Any], longest: int = 0) -> tuple[tuple[str, ...], Options]:
        """Return (stop strings, checked options), with the model's own end-of-text filled in if none was named.

        `longest` is the length of the longest prompt, for a ``max_length`` in generation_config.json.
        """
        for name in names:
            if name not in DEFAULTS and name not in IN_TEXT:
                raise ValueError(f"there is no option {name!r}{suggestion(name, [*DEFAULTS, *IN_TEXT])}")
        asked = generation_config.asked(self.settings, dict(names), longest)
        asked.pop("token_healing", None)  # which is of prompts alone: see `healing`
        strings = stop_strings(asked.pop("stop_strings", None))
        self.encode_texts(asked)
        automaton = constraints.from_options(asked, self.vocabulary)
        if automaton is not None:
            asked["constraint"] = automaton
        if "eos_token_id" not in asked:
            asked["eos_token_id"] = self.eos_token_ids or None
        pad = self.settings.get("pad_token_id")
        if "pad_token_id" not in asked and pad is not None and 0 <= pad < self.config.vocab_size:
            asked["pad_token_id"] = pad
        options = Options.from_names(asked)
        options.check_vocabulary(self.config.vocab_size)
        return strings, options

    def encode_texts(self, names: dict[str, Any]) -> None:
        """Encode texts in options in place, and add what guidance, assistance and DRY need if it wasn't given."""
        words = names.get("force_words_ids")
        if isinstance(words, (list, tuple)):
            names["force_words_ids"] = [self.phrase(one) for one in words]
        if names.get("guidance_scale") is not None:
            names.setdefault("unconditional", self.start)
        if names.get("assistant_model") is not None:
            names["assistant_model"] = self.assistant(names["assistant_model"])
        layers = names.get("assistant_early_exit")
        if layers is not None:
            if is_whole(layers) and layers > self.config.n_layer:  # before anything is written
                raise ValueError(f"assistant_early_exit must be between 1 and {self.config.n_layer}, got {layers}")
            names.setdefault("first_layers", self.first_layers)
        negative = names.get("negative_prompt_ids")
        if isinstance(negative, str):
            names["negative_prompt_ids"] = self.prompt(negative)
        elif isinstance(negative, (list, tuple)):
            names["negative_prompt_ids"] = [self.prompt(one) if isinstance(one, str) else one for one in negative]
        if names.get("banned_strings") is not None:
            names["banned_strings"] = banned_strings(names["banned_strings"], self.tokenizer)
        multiplier, given = names.get("dry_multiplier"), names.get("dry_sequence_breakers")
        dry = multiplier is not None and not option("dry_multiplier").means_off(multiplier)
        if dry and (given is None or isinstance(given, (list, tuple))):
            names["dry_sequence_breakers"] = (
                self.breaker_sequences(dry_breakers.DEFAULT if given is None else given) or None
            )

    def breaker_sequences(self, given: Sequence[Any]) -> list[Any]:
        """Return DRY's sequence breakers; those given as text become the id sequences that spell them."""
        texts = [one for one in given if isinstance(one, str)]
        others = [one for one in given if not isinstance(one, str)]
        return [*others, *(dry_breakers.breaker_sequences(self.tokenizer(), texts) if texts else ())]

    def phrase(self, words: Any) -> Any:
        """Encode a phrase given as text; a choice of phrases is encoded phrase by phrase."""
        if isinstance(words, str):
            return self.tokenizer().encode(words, add_special_tokens=False)
        if isinstance(words, (list, tuple)):
            return [self.phrase(one) if isinstance(one, str) else one for one in words]
        return words


def from_json(names: dict[str, Any]) -> dict[str, Any]:
    """Convert options in a JSON object in place: its keys are texts where ids are meant."""
    bias = names.get("logit_bias")
    if isinstance(bias, dict) and all(key.isascii() and key.isdigit() for key in bias):
        names["logit_bias"] = {int(key): value for key, value in bias.items()}
    return names


def is_batch(prompt: Any) -> bool:
    """Tell whether a prompt is several: a list that holds texts or lists rather than ids.

    ``ValueError``, which says what a prompt is, for anything else.
    """
    check_prompt(prompt)
    if isinstance(prompt, str):
        return False
    if hasattr(prompt, "__array__"):
        return np.ndim(prompt) > 1
    return len(prompt) > 0 and (isinstance(prompt[0], (str, Sequence)) or getattr(prompt[0], "ndim", 0) > 0)


def capacity(prompts: Sequence[Sequence[int]], options: Options, context: int) -> int:
    """Return the length, in positions, that the longest of these texts may reach."""
    return min(context, max((len(prompt) + options.most(len(prompt)) for prompt in prompts), default=1))


def check_assistant(theirs: int, ours: int) -> None:
    """Raise ``ValueError`` if a draft model's vocabulary has another size: without tokenizers, ids say nothing."""
    if ours != theirs:
        raise ValueError(
            f"assistant_model must have the model's vocabulary ({ours} ids), got one of {theirs}, "
            "and no two tokenizers that tell what they spell"
        )


NAMED = (str, Path)  # what names a model that is to be loaded

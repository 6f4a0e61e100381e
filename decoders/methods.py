"""The list of all decoding methods.

To add a method, write its file (a statement beside its code, as in `processors.top_h`), name it here at its place, and
run ``python scripts/write_methods.py``, which writes `fields` from the statements. A method's file is loaded when one
of its options is given, so that a run loads only what it uses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from .base.errors import require
from .fields import OPTIONS as OPTIONS  # for `methods.OPTIONS`

if TYPE_CHECKING:
    from .base.method import Method, Only, Option, Profile

# What acts on scores, by name, and the file of `processors` that states it. The order is transformers'
# (`GenerationMixin._get_logits_processor`), since order changes results: first rules about the text so far, then
# samplers, then what comes last. Other engines' methods stand where they don't disturb that order.
PROCESSORS = {
    "guidance_scale": "guidance",
    "sequence_bias": "bias",
    "logit_bias": "bias",
    "diversity_penalty": "diversity",
    "encoder_repetition_penalty": "encoder",
    "repetition_penalty": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "dry_multiplier": "dry",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "encoder_no_repeat_ngram_size": "encoder",
    "bad_words_ids": "bias",
    "min_length": "lengths",
    "min_new_tokens": "lengths",
    "prefix_allowed_tokens_fn": "prefix_allowed",
    "forced_bos_token_id": "forced",
    "forced_eos_token_id": "forced",
    "remove_invalid_values": "values",
    "exponential_decay_length_penalty": "lengths",
    "suppress_tokens": "suppress",
    "begin_suppress_tokens": "suppress",
    "constraint": "constraint",  # where transformers has a caller's own: nothing puts back what it forbids
    "min_k": "min_k",
    "temperature": "temperature",
    "smoothing_factor": "smoothing",
    "top_n_sigma": "top_n_sigma",
    "top_h": "top_h",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "epsilon_cutoff": "cutoffs",
    "eta_cutoff": "cutoffs",
    "tfs": "tail_free",
    "top_a": "top_a",
    "p_less": "p_less",
    "p_less_norm": "p_less",
    "xtc_probability": "xtc",
    "mirostat": "mirostat",
    "watermarking_config": "watermark",
    "adaptive_target": "adaptive_p",
    "renormalize_logits": "values",
}
# Further conditions that end a text, and the file of `processors` that states each.
STOPS = {"repetition detection": "repetition_detection"}
# Searches, and the file of `searches` that states each: the first one that the options select runs.
SEARCHES = {
    "exhaustive": "exhaustive",
    "constrained beams": "constrained_beam",
    "diverse beams": "group_beam",
    "stochastic beams": "stochastic_beam",
    "beam search": "beam",
    "best of n": "best_of",
    "contrastive search": "contrastive",
    "prompt look-up": "assisted",
    "n-gram drafts": "ngram_drafts",
    "early exit": "early_exit",
    "draft model": "assisted",
    "DoLa": "dola",
    "banned strings": "banned",
    "token by token": "token_by_token",
}
# Other engines' profiles, and the file of `processors` that states each.
PROFILES = {
    "llama.cpp": "llama_cpp",
    "ctranslate2": "ctranslate2",
    "mlx-lm": "mlx_lm",
    "vllm": "vllm",
    "exllamav3": "exllamav3",
    "koboldcpp": "koboldcpp",
}


@cache
def stated(home: str) -> tuple[Method, ...]:
    """Return the methods that a file of this package states."""
    found: tuple[Method, ...] = importlib.import_module(f".{home}", __package__).METHODS
    return found


def method(name: str) -> Method:
    """Return the method of this name."""
    acting = PROCESSORS | STOPS
    home = f"processors.{acting[name]}" if name in acting else f"searches.{SEARCHES[name]}"
    return next(one for one in stated(home) if one.name == name)


@cache
def option(name: str) -> Option:
    """Return the statement of an option."""
    return next(one for method in stated(OPTIONS[name].home) for one in method.options if one.name == name)


def concerned(names: Iterable[str]) -> list[Method]:
    """Return the methods that state these options or are selected by them, in the list's order."""
    homes = {OPTIONS[name].home for name in names} | {f"processors.{PROCESSORS[n]}" for n in names if n in PROCESSORS}
    found = {one.name: one for home in homes for one in stated(home)}
    return [found[name] for name in ("order", *PROCESSORS, *STOPS, *SEARCHES) if name in found]


@lru_cache(maxsize=256)
def asked_for(names: frozenset[str]) -> tuple[Method, ...]:
    """Return the methods that these options select, in the list's order."""
    return tuple(method for method in concerned(names) if not names.isdisjoint(method.askers))


def only(name: str) -> Only:
    """Return when an option acts at all: as it says itself, or as the method says that it selects."""
    of_methods = [method.only for method in concerned([name]) if name in method.askers and method.only]
    return of_methods[-1] if of_methods else option(name).only


def every() -> list[Method]:
    """Return all methods, in the list's order; this loads their files."""
    return [*stated("processors.order"), *map(method, (*PROCESSORS, *STOPS, *SEARCHES))]


def profile(name: str) -> Profile:
    """Return the profile of an engine; ``ValueError`` for an unknown one."""
    require(name in list(PROFILES), f"profile must be one of {', '.join(PROFILES)}", name)
    found: Profile = importlib.import_module(f".processors.{PROFILES[name]}", __package__).PROFILE
    return found

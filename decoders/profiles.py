"""In which order processors act, and the habits of other engines: their order, defaults and tie rule.

=============  =================================================  =====================================================
profile        order of the samplers                              besides
=============  =================================================  =====================================================
(none)         temperature, top_n_sigma, top_h, top_k, top_p,     transformers': top_k keeps ties, top_p sums upwards
               min_p, typical_p, epsilon, eta, xtc, mirostat
"llama.cpp"    top_n_sigma, top_k 40, typical_p, top_p 0.95,      exactly k; top_p sums downwards; penalties first, over
               min_p 0.05, xtc, temperature 0.8                   the last 64 ids; mirostat acts after temperature alone
"ctranslate2"  top_k 1, temperature, top_p                        exactly k; top_p sums downwards
"mlx-lm"       top_p, min_p, xtc, top_k, temperature              exactly k; top_p sums downwards, ties stay; penalties
                                                                  over the last 20 ids
=============  =================================================  =====================================================

Checked against llama.cpp's and mlx-lm's own functions; CTranslate2's against its source (``src/sampling.cc``,
``src/ops/topp_mask_cpu.cc``). Their random streams and beam searches are their own. A constraint comes first with
llama.cpp's profile, as a grammar does there where the first choice breaks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import require
from .strategies import excluded, given

if TYPE_CHECKING:
    from .options import Options

# By the option that asks for each, in the order in which they act: what depends on the text, …
RULES = (
    "guidance_scale",
    "sequence_bias",
    "logit_bias",
    "diversity_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "prefix_allowed_tokens_fn",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "constraint",
)
# … what acts when sampling ("temperature" stands for the dynamic one too), …
WARPERS = (
    "temperature",
    "top_n_sigma",
    "top_h",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "xtc_probability",
    "mirostat",
)
# … and what comes last.
LAST = ("watermarking_config", "renormalize_logits")
# What puts tokens back that were forbidden before it.
REVIVING = ("prefix_allowed_tokens_fn", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values")
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
MIROSTAT_REPLACES = tuple(name for name in WARPERS if name not in ("temperature", "mirostat"))


@dataclass(frozen=True)
class Profile:
    """An engine's habits. What is not in its order it hasn't got."""

    order: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)  # when sampling
    penalty_last_n: int | None = None


PROFILES = {
    "llama.cpp": Profile(
        (
            "constraint",
            "logit_bias",
            *PENALTIES,
            "dry_multiplier",
            "top_n_sigma",
            "top_k",
            "typical_p",
            "top_p",
            "min_p",
            "xtc_probability",
            "temperature",
            "mirostat",
        ),
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
        64,
    ),
    "ctranslate2": Profile(
        (
            "min_new_tokens",
            "repetition_penalty",
            "no_repeat_ngram_size",
            "bad_words_ids",
            "suppress_tokens",
            "top_k",
            "temperature",
            "top_p",
        ),
        {"top_k": 1},
    ),
    "mlx-lm": Profile(("logit_bias", *PENALTIES, "top_p", "min_p", "xtc_probability", "top_k", "temperature"), {}, 20),
}


def defaults(options: Options) -> dict[str, Any]:
    """What the profile fills in: options that were not given and that the engine has a default for."""
    if options.profile is None:
        return {}
    require(options.profile in PROFILES, f"profile must be one of {', '.join(PROFILES)}", options.profile)
    profile, filled = PROFILES[options.profile], {}
    if options.do_sample:
        kept = ("temperature",) if options.mirostat else profile.defaults
        filled = {name: profile.defaults[name] for name in kept if getattr(options, name) is None}
    if profile.penalty_last_n and options.penalty_last_n is None and any(given(options, name) for name in PENALTIES):
        filled["penalty_last_n"] = profile.penalty_last_n
    return filled


def order(options: Options) -> tuple[str, ...] | None:
    """The order that was asked for, by name or by profile; None for transformers'."""
    if options.order is not None:
        return tuple(options.order)
    return None if options.profile is None else PROFILES[options.profile].order


def rank(name: str, order: tuple[str, ...]) -> int:
    """Where a processor stands in an order. Of what it doesn't name, rules come first and the rest last."""
    if name in order:
        return order.index(name)
    return len(order) if name in LAST else -1


def in_use(options: Options, name: str) -> bool:
    """Whether a processor acts."""
    return given(options, name) or (name == "temperature" and options.dynatemp_range is not None)


def any_in_use(options: Options) -> bool:
    """Whether any processor acts."""
    return any(in_use(options, name) for name in (*RULES, *WARPERS, *LAST))


def check(options: Options) -> None:
    """``ValueError``, in one line, for an order or a profile that can't be."""
    o = options
    if o.order is not None:
        require(not isinstance(o.order, str), "order must be a list of names", o.order)
        names = (*RULES, *WARPERS, *LAST)
        for name in o.order:
            require(name in names, f"order may name {', '.join(names)}", name)
            require(list(o.order).count(name) == 1, "order must name nothing twice", name)
        if o.constraint is not None:
            own = rank("constraint", tuple(o.order))
            late = [name for name in REVIVING if in_use(o, name) and rank(name, tuple(o.order)) > own]
            require(not late, "order must put constraint after what puts forbidden tokens back", late)
        missing = [name for name in WARPERS if in_use(o, name) and name not in o.order]
        require(not missing, f"order must name every sampler in use ({', '.join(missing)} is missing)", list(o.order))
    if o.profile is not None:
        profile = PROFILES[o.profile]
        for name in (*RULES, *WARPERS, *LAST):
            if name not in profile.order and in_use(o, name):
                raise ValueError(f"profile {o.profile!r} has no {name}; leave one of the two out")
        for name in ("num_beams", "penalty_alpha", "dola_layers", "exhaustive"):
            if given(o, name):
                raise ValueError(f"profile {o.profile!r} is about sampling; leave {name} out")
        if o.profile != "llama.cpp" and o.dynatemp_range is not None:
            raise ValueError(f"profile {o.profile!r} has no dynatemp_range; leave one of the two out")
    if o.mirostat is not None:
        excluded("mirostat", o, *MIROSTAT_REPLACES, "num_beams", "best_of", "dola_layers")
        if o.profile == "llama.cpp":
            excluded("mirostat in llama.cpp", o, *PENALTIES, "dry_multiplier")

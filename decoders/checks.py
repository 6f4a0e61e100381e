"""Which values and combinations of options can be: everything that `Options` checks before work starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import profiles, strategies
from .errors import require

if TYPE_CHECKING:
    from .options import Options

# What acts only when sampling, and only in beam search.
SAMPLING_ONLY = (*profiles.WARPERS, "dynatemp_range", "min_tokens_to_keep")
BEAMS_ONLY = ("length_penalty", "early_stopping")

# What must be a whole number, with the lowest that can be.
WHOLE = {
    "max_new_tokens": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "top_k": 1,
    "no_repeat_ngram_size": 1,
    "num_beam_groups": 1,
    "best_of": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "top_logprobs": 0,
    "seed": 0,
    "cuda_multiprocessors": 1,
    "min_tokens_to_keep": 1,
    "mirostat": 1,
    "penalty_last_n": 1,
    "dry_allowed_length": 0,
    "dry_penalty_last_n": 1,
    "prompt_lookup_num_tokens": 1,
    "max_matching_ngram_size": 1,
    "num_assistant_tokens": 1,
}

MOST_TEXTS = 2**16  # of one prompt; more are a slip of the finger, and would fill the memory before the first token

# What must be a number, above its lowest where it has one.
NUMBERS: dict[str, float | None] = dict.fromkeys(SAMPLING_ONLY) | {
    "length_penalty": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "repetition_penalty": 0,
    "max_time": 0,
    "diversity_penalty": None,
    "penalty_alpha": None,
    "xtc_threshold": None,
    "dynatemp_exponent": 0,
    "mirostat_tau": 0,
    "mirostat_eta": None,
    "dry_multiplier": 0,
    "dry_base": None,
    "guidance_scale": None,
    "assistant_confidence_threshold": None,
}

# What min_tokens_to_keep holds back.
TRUNCATING = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_probability")

NOT_EMPTY = (
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "dry_sequence_breakers",
    "negative_prompt_ids",
    "order",
)

# What only refines another option, which must be there; for penalty_last_n, any of three.
REFINES = {
    "xtc_threshold": "xtc_probability",
    "dynatemp_exponent": "dynatemp_range",
    "mirostat_tau": "mirostat",
    "mirostat_eta": "mirostat",
    "dry_base": "dry_multiplier",
    "dry_allowed_length": "dry_multiplier",
    "dry_penalty_last_n": "dry_multiplier",
    "dry_sequence_breakers": "dry_multiplier",
    "negative_prompt_ids": "guidance_scale",
    "max_matching_ngram_size": "prompt_lookup_num_tokens",
    "num_assistant_tokens": "assistant_model",
    "num_assistant_tokens_schedule": "assistant_model",
    "assistant_confidence_threshold": "assistant_model",
}


def check(options: Options) -> None:
    """``ValueError``, in one line, for the first value or combination that can't be."""
    values(options)
    ranges(options)
    strategy(options)
    strategies.check(options)
    profiles.check(options)


def values(options: Options) -> None:
    """Each option by itself: numbers are numbers, and not too low."""
    for name, lowest in WHOLE.items():
        value = getattr(options, name)
        if value is not None:
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(whole and value >= lowest, f"{name} must be a whole number of at least {lowest}", value)
    for name in ("num_return_sequences", "best_of"):
        value = getattr(options, name)
        require(value is None or value <= MOST_TEXTS, f"{name} must be at most {MOST_TEXTS}", value)
    for name, above in NUMBERS.items():
        value = getattr(options, name)
        if value is not None:
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
            require(number, f"{name} must be a number", value)
            if above is not None:
                require(value > above, f"{name} must be above {above}", value)
    for name in NOT_EMPTY:
        value = getattr(options, name)
        if value is not None:
            full = len(value) > 0 and all(one if isinstance(one, Sequence) else True for one in value)
            require(full, f"{name} must not be empty", value)


def ranges(options: Options) -> None:
    """The ranges of values, and what depends on another option."""
    o = options
    require(o.rng in ("cpu", "cuda"), "rng must be 'cpu' or 'cuda'", o.rng)
    early = (None, True, False, "never")
    require(o.early_stopping in early, "early_stopping must be True, False or 'never'", o.early_stopping)
    if o.min_new_tokens is not None:
        rule = f"min_new_tokens must be at most max_new_tokens ({o.max_new_tokens})"
        require(o.min_new_tokens <= o.max_new_tokens, rule, o.min_new_tokens)
    if profiles.any_in_use(o):
        processors(o)
    for name, biases in (("logit_bias", o.logit_bias), ("sequence_bias", o.sequence_bias)):
        for _, bias in biases.items() if isinstance(biases, Mapping) else biases or ():
            require(bias < math.inf, f"{name} must hold numbers below infinity", bias)
    automaton = o.constraint is None or hasattr(o.constraint, "following")
    require(automaton, "constraint must be an automaton with a method `following`", o.constraint)
    if o.guidance_scale is not None:
        require(math.isfinite(o.guidance_scale), "guidance_scale must be finite", o.guidance_scale)
        if o.guidance_scale != 1 and o.unconditional is None:
            raise ValueError("guidance_scale needs a second stepper: give unconditional, which makes one")


def processors(options: Options) -> None:
    """What some processors know themselves of their values: each is made, to see whether it can be."""
    from . import llama_cpp, mirostat, repetition, warpers

    o = options
    for warper, value in (
        (warpers.Temperature, o.temperature),
        (warpers.TopP, o.top_p),
        (warpers.MinP, o.min_p),
        (warpers.EpsilonCutoff, o.epsilon_cutoff),
        (warpers.EtaCutoff, o.eta_cutoff),
        (warpers.TopH, o.top_h),
    ):
        if value is not None:
            warper(value)
    if o.typical_p is not None and o.typical_p != 1:
        warpers.Typical(o.typical_p)
    if o.top_n_sigma is not None:
        llama_cpp.TopNSigma(o.top_n_sigma)
    if o.xtc_probability is not None:
        llama_cpp.XTC(o.xtc_probability, 0.1 if o.xtc_threshold is None else o.xtc_threshold, float)
    if o.dynatemp_range is not None:
        llama_cpp.DynamicTemperature(o.temperature or 1.0, o.dynatemp_range, o.dynatemp_exponent or 1.0)
    if o.mirostat is not None:
        require(o.mirostat <= 2, "mirostat must be 1 or 2", o.mirostat)
        mirostat.MirostatV2(0, o.mirostat_tau or 5.0, o.mirostat_eta or 0.0)
    if o.dry_multiplier is not None:
        repetition.DRY(o.dry_multiplier, 1.75 if o.dry_base is None else o.dry_base)


def strategy(options: Options) -> None:
    """What the chosen strategy would ignore is refused, by name."""
    o = options
    for name, needed in REFINES.items():
        if getattr(o, name) is not None and getattr(o, needed) is None:
            raise ValueError(f"{name} needs {needed}; give it too, or leave {name} out")
    if o.penalty_last_n is not None and all(getattr(o, name) is None for name in profiles.PENALTIES):
        raise ValueError(f"penalty_last_n needs one of {', '.join(profiles.PENALTIES)}; or leave it out")
    if o.min_tokens_to_keep is not None and all(getattr(o, name) is None for name in TRUNCATING):
        raise ValueError("min_tokens_to_keep needs a sampler that removes tokens; or leave it out")
    if not o.do_sample:
        for name in (*SAMPLING_ONLY, "uniforms"):
            if getattr(o, name) is not None and not (name == "top_k" and o.penalty_alpha is not None):
                raise ValueError(f"{name} acts only when sampling; give do_sample too, or leave {name} out")
        if o.num_beams == 1 and o.num_return_sequences > 1 and not o.exhaustive:
            raise ValueError(
                f"greedy decoding gives one sequence, got num_return_sequences "
                f"{o.num_return_sequences}; give do_sample or num_beams"
            )
    if o.num_beams == 1:
        for name in BEAMS_ONLY:
            if getattr(o, name) is not None and not (name == "length_penalty" and o.exhaustive):
                raise ValueError(f"{name} acts only in beam search; give num_beams above 1, or leave {name} out")
    elif o.num_return_sequences > o.num_beams:
        raise ValueError(
            f"num_return_sequences must be at most num_beams ({o.num_beams}), got {o.num_return_sequences}"
        )
    elif o.uniforms is not None:
        raise ValueError("uniforms can't drive beam sampling, which draws without replacement")


def vocabulary(options: Options, size: int) -> None:
    """``ValueError`` when an option names a token outside the vocabulary, or asks for more than it holds."""
    o = options
    rule = f"num_beams must be at most the vocabulary's size ({size})"
    require(o.num_beams == 1 or o.num_beams <= size, rule, o.num_beams)
    forced = o.forced_eos_token_id
    named: dict[str, Any] = {
        "eos_token_id": o.eos_token_ids,
        "pad_token_id": None if o.pad_token_id is None else [o.pad_token_id],
        "suppress_tokens": o.suppress_tokens,
        "begin_suppress_tokens": o.begin_suppress_tokens,
        "forced_bos_token_id": None if o.forced_bos_token_id is None else [o.forced_bos_token_id],
        "forced_eos_token_id": [forced] if isinstance(forced, int) else forced,
        "logit_bias": o.logit_bias,
        "force_words_ids": [token for phrase in strategies.phrases(o.force_words_ids or ()) for token in phrase],
        "dry_sequence_breakers": [token for breaker in o.dry_sequence_breakers or () for token in breaker],
        "negative_prompt_ids": [
            token for one in o.negative_prompt_ids or () for token in (one if isinstance(one, Sequence) else [one])
        ],
        "bad_words_ids": [token for word in o.bad_words_ids or () for token in word],
    }
    for name, tokens in named.items():
        for token in tokens or ():
            require(0 <= token < size, f"{name} must hold ids between 0 and {size - 1}", token)

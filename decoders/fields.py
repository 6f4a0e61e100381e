"""Every option of decoding: as a field, as a keyword argument, and in a table that tells its method's file.

``python scripts/write_methods.py`` writes this file from the methods' statements, in the order of `methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .base.listed import Listed

if TYPE_CHECKING:
    from .processors.watermark import Watermarking


@dataclass(frozen=True, repr=False)
class Fields:
    """Every option with its type and default."""

    max_new_tokens: int = 50
    max_length: int | None = None
    max_time: float | None = None
    eos_token_id: int | Sequence[int] | None = None
    do_sample: bool = False
    seed: int | None = None
    rng: Literal["cpu", "cuda"] = "cpu"
    cuda_multiprocessors: int | None = None
    uniforms: Sequence[float] | None = None
    num_return_sequences: int = 1
    output_scores: bool = False
    top_logprobs: int = 0
    profile: str | None = None
    order: Sequence[str] | None = None
    min_tokens_to_keep: int | None = None
    guidance_scale: float | None = None
    negative_prompt_ids: Sequence[int] | Sequence[Sequence[int]] | None = None
    unconditional: Callable[..., Any] | None = None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None = None
    logit_bias: Mapping[int, float] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    encoder_repetition_penalty: float | None = None
    encoder_repetition_penalty_normalize: bool = False
    encoder_no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    penalty_last_n: int | None = None
    prompt_ignore_length: int | None = None
    repetition_penalty_normalize: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Sequence[Sequence[int]] | None = None
    no_repeat_ngram_size: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    prefix_allowed_tokens_fn: Callable[..., Any] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    constraint: Any | None = None
    min_k: bool = False
    min_k_tau: float | None = None
    temperature: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    smoothing_factor: float | None = None
    smoothing_curve: float | None = None
    top_n_sigma: float | None = None
    top_h: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    tfs: float | None = None
    top_a: float | None = None
    p_less: bool = False
    p_less_norm: bool = False
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    xtc_special_tokens: Sequence[int] | None = None
    mirostat: Literal[1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    watermarking_config: Watermarking | Mapping[str, Any] | None = None
    adaptive_target: float | None = None
    adaptive_decay: float | None = None
    max_pattern_size: int | None = None
    min_pattern_size: int | None = None
    min_count: int | None = None
    exhaustive: bool = False
    force_words_ids: Sequence[Sequence[int] | Sequence[Sequence[int]]] | None = None
    num_beam_groups: int = 1
    diversity_penalty: float | None = None
    pad_token_id: int | None = None
    stochastic_beams: bool = False
    num_beams: int = 1
    length_penalty: float | None = None
    early_stopping: Literal[True, False, "never"] | None = None
    best_of: int | None = None
    penalty_alpha: float | None = None
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None
    prompt_lookup_draws: Literal["plain", "transformers"] | None = None
    assistant_model: Any | None = None
    num_assistant_tokens: int | None = None
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] | None = None
    assistant_confidence_threshold: float | None = None
    spec_type: Literal["ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"] | None = None
    spec_ngram_size_n: int | None = None
    spec_ngram_size_m: int | None = None
    spec_ngram_min_hits: int | None = None
    draft_min: int | None = None
    draft_max: int | None = None
    assistant_early_exit: int | None = None
    first_layers: Callable[..., Any] | None = None
    dola_layers: Literal["low", "high"] | Sequence[int] | None = None
    banned_strings: Any | None = None

    def __post_init__(self) -> None:
        """`Options` checks them here."""


class Names(TypedDict, total=False):
    """The same as keyword arguments of what has a tokenizer, but for ``num_return_sequences``."""

    max_new_tokens: int
    max_length: int | None
    max_time: float | None
    eos_token_id: int | Sequence[int] | None
    do_sample: bool
    seed: int | None
    rng: Literal["cpu", "cuda"]
    cuda_multiprocessors: int | None
    uniforms: Sequence[float] | None
    output_scores: bool
    top_logprobs: int
    profile: str | None
    order: Sequence[str] | None
    min_tokens_to_keep: int | None
    guidance_scale: float | None
    negative_prompt_ids: str | Sequence[int] | Sequence[str | Sequence[int]] | None
    unconditional: Callable[..., Any] | None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None
    logit_bias: Mapping[int, float] | None
    bad_words_ids: Sequence[Sequence[int]] | None
    encoder_repetition_penalty: float | None
    encoder_repetition_penalty_normalize: bool
    encoder_no_repeat_ngram_size: int | None
    repetition_penalty: float | None
    penalty_last_n: int | None
    prompt_ignore_length: int | None
    repetition_penalty_normalize: bool
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    dry_sequence_breakers: Sequence[str | Sequence[int]] | None
    no_repeat_ngram_size: int | None
    min_length: int | None
    min_new_tokens: int | None
    exponential_decay_length_penalty: tuple[int, float] | None
    prefix_allowed_tokens_fn: Callable[..., Any] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    remove_invalid_values: bool
    renormalize_logits: bool
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    constraint: Any | None
    min_k: bool
    min_k_tau: float | None
    temperature: float | None
    dynatemp_range: float | None
    dynatemp_exponent: float | None
    smoothing_factor: float | None
    smoothing_curve: float | None
    top_n_sigma: float | None
    top_h: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    tfs: float | None
    top_a: float | None
    p_less: bool
    p_less_norm: bool
    xtc_probability: float | None
    xtc_threshold: float | None
    xtc_special_tokens: Sequence[int] | None
    mirostat: Literal[1, 2] | None
    mirostat_tau: float | None
    mirostat_eta: float | None
    watermarking_config: Watermarking | Mapping[str, Any] | None
    adaptive_target: float | None
    adaptive_decay: float | None
    max_pattern_size: int | None
    min_pattern_size: int | None
    min_count: int | None
    exhaustive: bool
    force_words_ids: Sequence[str | Sequence[int] | Sequence[str | Sequence[int]]] | None
    num_beam_groups: int
    diversity_penalty: float | None
    pad_token_id: int | None
    stochastic_beams: bool
    num_beams: int
    length_penalty: float | None
    early_stopping: Literal[True, False, "never"] | None
    best_of: int | None
    penalty_alpha: float | None
    prompt_lookup_num_tokens: int | None
    max_matching_ngram_size: int | None
    prompt_lookup_draws: Literal["plain", "transformers"] | None
    assistant_model: Any | None
    num_assistant_tokens: int | None
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] | None
    assistant_confidence_threshold: float | None
    spec_type: Literal["ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"] | None
    spec_ngram_size_n: int | None
    spec_ngram_size_m: int | None
    spec_ngram_min_hits: int | None
    draft_min: int | None
    draft_max: int | None
    assistant_early_exit: int | None
    first_layers: Callable[..., Any] | None
    dola_layers: Literal["low", "high"] | Sequence[int] | None
    banned_strings: str | Sequence[str] | None


OPTIONS: dict[str, Listed] = {
    "max_new_tokens": Listed("searches.token_by_token", "whole", "-n/--max-new-tokens"),
    "max_length": Listed("searches.token_by_token", "whole", "--max-length"),
    "max_time": Listed("searches.token_by_token", "number", "--max-time"),
    "eos_token_id": Listed("searches.token_by_token", "id or ids", ""),
    "do_sample": Listed("searches.token_by_token", "flag", "--do-sample"),
    "seed": Listed("searches.token_by_token", "whole", "--seed"),
    "rng": Listed("searches.token_by_token", "name", "--rng", choices=("cpu", "cuda")),
    "cuda_multiprocessors": Listed("searches.token_by_token", "whole", "--cuda-multiprocessors"),
    "uniforms": Listed("searches.token_by_token", "numbers", "--uniforms"),
    "num_return_sequences": Listed("searches.token_by_token", "whole", "--num-return-sequences"),
    "output_scores": Listed("searches.token_by_token", "flag", ""),
    "top_logprobs": Listed("searches.token_by_token", "whole", ""),
    "profile": Listed("processors.order", "profile", "--profile"),
    "order": Listed("processors.order", "names", "--order"),
    "min_tokens_to_keep": Listed("processors.order", "whole", "--min-tokens-to-keep"),
    "guidance_scale": Listed("processors.guidance", "number", "--guidance-scale"),
    "negative_prompt_ids": Listed("processors.guidance", "prompts", "--negative-prompt"),
    "unconditional": Listed("processors.guidance", "callable", ""),
    "sequence_bias": Listed("processors.bias", "sequence bias", ""),
    "logit_bias": Listed("processors.bias", "logit bias", ""),
    "bad_words_ids": Listed("processors.bias", "phrases", ""),
    "encoder_repetition_penalty": Listed("processors.encoder", "number", "--encoder-repetition-penalty"),
    "encoder_repetition_penalty_normalize": Listed(
        "processors.encoder", "flag", "--encoder-repetition-penalty-normalize"
    ),
    "encoder_no_repeat_ngram_size": Listed("processors.encoder", "whole", "--encoder-no-repeat-ngram-size"),
    "repetition_penalty": Listed("processors.penalties", "number", "--repetition-penalty"),
    "penalty_last_n": Listed("processors.penalties", "whole", "--penalty-last-n"),
    "prompt_ignore_length": Listed("processors.penalties", "whole", "--prompt-ignore-length"),
    "repetition_penalty_normalize": Listed("processors.penalties", "flag", "--repetition-penalty-normalize"),
    "presence_penalty": Listed("processors.penalties", "number", "--presence-penalty"),
    "frequency_penalty": Listed("processors.penalties", "number", "--frequency-penalty"),
    "dry_multiplier": Listed("processors.dry", "number", "--dry-multiplier"),
    "dry_base": Listed("processors.dry", "number", "--dry-base"),
    "dry_allowed_length": Listed("processors.dry", "whole", "--dry-allowed-length"),
    "dry_penalty_last_n": Listed("processors.dry", "whole", "--dry-penalty-last-n"),
    "dry_sequence_breakers": Listed("processors.dry", "phrases", "--dry-sequence-breaker", repeatable=True),
    "no_repeat_ngram_size": Listed("processors.no_repeat_ngram", "whole", "--no-repeat-ngram-size"),
    "min_length": Listed("processors.lengths", "whole", ""),
    "min_new_tokens": Listed("processors.lengths", "whole", "--min-new-tokens"),
    "exponential_decay_length_penalty": Listed("processors.lengths", "decay", ""),
    "prefix_allowed_tokens_fn": Listed("processors.prefix_allowed", "callable", ""),
    "forced_bos_token_id": Listed("processors.forced", "id", ""),
    "forced_eos_token_id": Listed("processors.forced", "id or ids", ""),
    "remove_invalid_values": Listed("processors.values", "flag", ""),
    "renormalize_logits": Listed("processors.values", "flag", ""),
    "suppress_tokens": Listed("processors.suppress", "ids", ""),
    "begin_suppress_tokens": Listed("processors.suppress", "ids", ""),
    "constraint": Listed("processors.constraint", "anything", ""),
    "min_k": Listed("processors.min_k", "flag", "--min-k"),
    "min_k_tau": Listed("processors.min_k", "number", "--min-k-tau"),
    "temperature": Listed("processors.temperature", "number", "--temperature"),
    "dynatemp_range": Listed("processors.temperature", "number", "--dynatemp-range"),
    "dynatemp_exponent": Listed("processors.temperature", "number", "--dynatemp-exponent"),
    "smoothing_factor": Listed("processors.smoothing", "number", "--smoothing-factor"),
    "smoothing_curve": Listed("processors.smoothing", "number", "--smoothing-curve"),
    "top_n_sigma": Listed("processors.top_n_sigma", "number", "--top-n-sigma"),
    "top_h": Listed("processors.top_h", "number", "--top-h"),
    "top_k": Listed("processors.top_k", "whole", "--top-k"),
    "top_p": Listed("processors.top_p", "number", "--top-p"),
    "min_p": Listed("processors.min_p", "number", "--min-p"),
    "typical_p": Listed("processors.typical_p", "number", "--typical-p"),
    "epsilon_cutoff": Listed("processors.cutoffs", "number", "--epsilon-cutoff"),
    "eta_cutoff": Listed("processors.cutoffs", "number", "--eta-cutoff"),
    "tfs": Listed("processors.tail_free", "number", "--tfs"),
    "top_a": Listed("processors.top_a", "number", "--top-a"),
    "p_less": Listed("processors.p_less", "flag", "--p-less"),
    "p_less_norm": Listed("processors.p_less", "flag", "--p-less-norm"),
    "xtc_probability": Listed("processors.xtc", "number", "--xtc-probability"),
    "xtc_threshold": Listed("processors.xtc", "number", "--xtc-threshold"),
    "xtc_special_tokens": Listed("processors.xtc", "ids", ""),
    "mirostat": Listed("processors.mirostat", "whole", "--mirostat", choices=(1, 2)),
    "mirostat_tau": Listed("processors.mirostat", "number", "--mirostat-tau"),
    "mirostat_eta": Listed("processors.mirostat", "number", "--mirostat-eta"),
    "watermarking_config": Listed("processors.watermark", "watermarking", "--watermark"),
    "adaptive_target": Listed("processors.adaptive_p", "number", "--adaptive-target"),
    "adaptive_decay": Listed("processors.adaptive_p", "number", "--adaptive-decay"),
    "max_pattern_size": Listed("processors.repetition_detection", "whole", "--max-pattern-size"),
    "min_pattern_size": Listed("processors.repetition_detection", "whole", "--min-pattern-size"),
    "min_count": Listed("processors.repetition_detection", "whole", "--min-count"),
    "exhaustive": Listed("searches.exhaustive", "flag", "--exhaustive"),
    "force_words_ids": Listed("searches.constrained_beam", "words", "--force-words", repeatable=True),
    "num_beam_groups": Listed("searches.group_beam", "whole", "--num-beam-groups"),
    "diversity_penalty": Listed("searches.group_beam", "number", "--diversity-penalty"),
    "pad_token_id": Listed("searches.group_beam", "id", ""),
    "stochastic_beams": Listed("searches.stochastic_beam", "flag", "--stochastic-beams"),
    "num_beams": Listed("searches.beam", "whole", "--num-beams"),
    "length_penalty": Listed("searches.beam", "number", "--length-penalty"),
    "early_stopping": Listed("searches.beam", "early", "--early-stopping", choices=(True, False, "never")),
    "best_of": Listed("searches.best_of", "whole", "--best-of"),
    "penalty_alpha": Listed("searches.contrastive", "number", "--penalty-alpha"),
    "prompt_lookup_num_tokens": Listed("searches.assisted", "whole", "--prompt-lookup-num-tokens"),
    "max_matching_ngram_size": Listed("searches.assisted", "whole", "--max-matching-ngram-size"),
    "prompt_lookup_draws": Listed(
        "searches.assisted", "name", "--prompt-lookup-draws", choices=("plain", "transformers")
    ),
    "assistant_model": Listed("searches.assisted", "anything", "--assistant-model"),
    "num_assistant_tokens": Listed("searches.assisted", "whole", "--num-assistant-tokens"),
    "num_assistant_tokens_schedule": Listed(
        "searches.assisted",
        "name",
        "--num-assistant-tokens-schedule",
        choices=("constant", "heuristic", "heuristic_transient"),
    ),
    "assistant_confidence_threshold": Listed("searches.assisted", "number", "--assistant-confidence-threshold"),
    "spec_type": Listed(
        "searches.ngram_drafts",
        "name",
        "--spec-type",
        choices=("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"),
    ),
    "spec_ngram_size_n": Listed("searches.ngram_drafts", "whole", "--spec-ngram-size-n"),
    "spec_ngram_size_m": Listed("searches.ngram_drafts", "whole", "--spec-ngram-size-m"),
    "spec_ngram_min_hits": Listed("searches.ngram_drafts", "whole", "--spec-ngram-min-hits"),
    "draft_min": Listed("searches.ngram_drafts", "whole", "--draft-min"),
    "draft_max": Listed("searches.ngram_drafts", "whole", "--draft-max"),
    "assistant_early_exit": Listed("searches.early_exit", "whole", "--assistant-early-exit"),
    "first_layers": Listed("searches.early_exit", "callable", ""),
    "dola_layers": Listed("searches.dola", "layers", "--dola-layers"),
    "banned_strings": Listed("searches.banned", "anything", "--banned-string", repeatable=True),
}

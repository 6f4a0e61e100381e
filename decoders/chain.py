"""Options → the processors of one prompt, in transformers' order, since order changes results.

It loads every processor there is, so it is loaded itself where some option asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from . import llama_cpp as L
from . import mlx_lm as M
from . import processors as P
from . import warpers as W
from .constraint import Constraint
from .guidance import Guidance
from .mirostat import MirostatV1, MirostatV2
from .options import Options
from .pipeline import Named
from .repetition import DRY, RecentPenalty
from .synthid import SynthID, SynthIDTextWatermarkingConfig
from .watermark import Watermark, WatermarkingConfig


def chain(options: Options, prompt: int, prompt_length: int, max_length: int, taken: Sequence[int]) -> Iterator[Named]:
    """All of them; see `pipeline.build`."""
    yield from rules(options, prompt, prompt_length, max_length, taken)
    if options.do_sample:
        yield from sampling(options, prompt, prompt_length)
    yield from last(options, prompt_length)


def rules(
    options: Options, prompt: int, prompt_length: int, max_length: int, taken: Sequence[int] = ()
) -> Iterator[Named]:
    """What depends on the text so far."""
    o, eos = options, options.eos_token_ids
    if o.guidance_scale is not None and o.guidance_scale != 1 and o.unconditional is not None:
        negative = o.negative_prompt(prompt)
        yield Named("guidance_scale", Guidance(o.guidance_scale, o.unconditional(), prompt_length, negative))
    if o.sequence_bias is not None:
        pairs = o.sequence_bias.items() if hasattr(o.sequence_bias, "items") else o.sequence_bias
        yield Named("sequence_bias", P.SequenceBias({tuple(sequence): value for sequence, value in pairs}))
    if o.logit_bias:
        yield Named("logit_bias", P.SequenceBias({(token,): value for token, value in o.logit_bias.items()}))
    if o.diversity_penalty is not None:
        yield Named("diversity_penalty", P.HammingDiversity(o.diversity_penalty, taken))
    yield from penalties(options, prompt_length)
    if o.no_repeat_ngram_size:
        yield Named("no_repeat_ngram_size", P.NoRepeatNgram(o.no_repeat_ngram_size))
    if o.bad_words_ids is not None:
        yield Named("bad_words_ids", P.bad_words(o.bad_words_ids, eos))
    if o.min_length and eos:
        yield Named("min_length", P.MinLength(o.min_length, eos))
    if o.min_new_tokens and eos:
        yield Named("min_new_tokens", P.MinLength(prompt_length + o.min_new_tokens, eos))
    if o.prefix_allowed_tokens_fn is not None:
        yield Named("prefix_allowed_tokens_fn", P.PrefixAllowedTokens(o.prefix_allowed_tokens_fn, prompt))
    if o.forced_bos_token_id is not None:
        yield Named("forced_bos_token_id", P.ForcedBOS(o.forced_bos_token_id))
    if o.forced_eos_token_id is not None:
        forced = o.forced_eos_token_id
        forced = (forced,) if isinstance(forced, int) else tuple(forced)
        yield Named("forced_eos_token_id", P.ForcedEOS(max_length, forced))
    if o.remove_invalid_values:
        yield Named("remove_invalid_values", P.RemoveInvalid())
    if o.exponential_decay_length_penalty is not None and eos:
        start, factor = o.exponential_decay_length_penalty
        decay = P.ExponentialDecayLengthPenalty(start + prompt_length, factor, eos)
        yield Named("exponential_decay_length_penalty", decay)
    if o.suppress_tokens is not None:
        yield Named("suppress_tokens", P.Suppress(tuple(o.suppress_tokens)))
    if o.begin_suppress_tokens is not None:
        later = prompt_length == 1 and o.forced_bos_token_id is not None
        yield Named("begin_suppress_tokens", P.SuppressAtBegin(tuple(o.begin_suppress_tokens), prompt_length + later))
    if o.constraint is not None:  # where transformers has a caller's own: nothing puts back what it forbids
        yield Named("constraint", Constraint(o.constraint, prompt_length, eos))


def penalties(options: Options, prompt_length: int) -> Iterator[Named]:
    """What makes repetition less likely: transformers' and OpenAI's, llama.cpp's where only the last n ids count."""
    o, n = options, options.penalty_last_n
    if o.repetition_penalty is not None and o.repetition_penalty != 1:
        p = o.repetition_penalty
        yield Named("repetition_penalty", P.RepetitionPenalty(p) if n is None else RecentPenalty(n, repeat=p))
    if o.presence_penalty:
        p = o.presence_penalty
        all_new = P.OccurrencePenalty(prompt_length, presence=p)
        yield Named("presence_penalty", all_new if n is None else RecentPenalty(n, presence=p))
    if o.frequency_penalty:
        p = o.frequency_penalty
        all_new = P.OccurrencePenalty(prompt_length, frequency=p)
        yield Named("frequency_penalty", all_new if n is None else RecentPenalty(n, frequency=p))
    if o.dry_multiplier is not None:
        base = 1.75 if o.dry_base is None else o.dry_base
        allowed = 2 if o.dry_allowed_length is None else o.dry_allowed_length
        breakers = tuple(tuple(breaker) for breaker in o.dry_sequence_breakers or ())
        yield Named("dry_multiplier", DRY(o.dry_multiplier, base, allowed, o.dry_penalty_last_n, breakers))


def sampling(options: Options, prompt: int, prompt_length: int) -> Iterator[Named]:
    """What reshapes or truncates the distribution before a draw, as transformers or the profile's engine does it."""
    o = options
    keep = o.min_tokens_to_keep or (1 if o.num_beams == 1 else max(2, len(o.eos_token_ids) + 1))
    if o.dynatemp_range is not None:
        dynamic = L.DynamicTemperature(o.temperature or 1.0, o.dynatemp_range, o.dynatemp_exponent or 1.0)
        yield Named("temperature", dynamic)
    elif o.temperature is not None and o.temperature != 1:
        yield Named("temperature", W.Temperature(o.temperature))
    if o.top_n_sigma is not None:
        yield Named("top_n_sigma", L.TopNSigma(o.top_n_sigma))
    if o.top_h is not None:
        yield Named("top_h", W.TopH(o.top_h))
    if o.top_k is not None:
        yield Named("top_k", W.TopK(o.top_k, keep) if o.profile is None else L.TopK(max(o.top_k, keep)))
    if o.top_p is not None and o.top_p < 1:
        yield Named(
            "top_p",
            M.TopP(o.top_p) if o.profile == "mlx-lm" else L.TopP(o.top_p, keep) if o.profile else W.TopP(o.top_p, keep),
        )
    if o.min_p is not None:
        yield Named("min_p", W.MinP(o.min_p, keep) if o.profile is None else L.MinP(o.min_p, keep))
    if o.typical_p is not None and o.typical_p < 1:
        yield Named("typical_p", W.Typical(o.typical_p, keep) if o.profile is None else L.Typical(o.typical_p, keep))
    if o.epsilon_cutoff is not None:
        yield Named("epsilon_cutoff", W.EpsilonCutoff(o.epsilon_cutoff, keep))
    if o.eta_cutoff is not None:
        yield Named("eta_cutoff", W.EtaCutoff(o.eta_cutoff, keep))
    if o.xtc_probability is not None:
        coin = np.random.default_rng(None if o.seed is None else [o.seed, prompt]).random
        threshold = 0.1 if o.xtc_threshold is None else o.xtc_threshold
        if o.profile == "mlx-lm":
            yield Named("xtc_probability", M.XTC(o.xtc_probability, threshold, coin))
        else:
            yield Named("xtc_probability", L.XTC(o.xtc_probability, threshold, coin, keep))
    if o.mirostat is not None:
        version = MirostatV1 if o.mirostat == 1 else MirostatV2
        tau = 5.0 if o.mirostat_tau is None else o.mirostat_tau
        eta = 0.1 if o.mirostat_eta is None else o.mirostat_eta
        yield Named("mirostat", version(prompt_length, tau, eta))


def last(options: Options, prompt_length: int) -> Iterator[Named]:
    """What acts on everything else's result, in every strategy."""
    o = options
    if isinstance(o.watermarking_config, WatermarkingConfig):
        yield Named("watermarking_config", Watermark(o.watermarking_config))
    if isinstance(o.watermarking_config, SynthIDTextWatermarkingConfig):
        yield Named("watermarking_config", SynthID(o.watermarking_config, prompt_length))
    if o.renormalize_logits:
        yield Named("renormalize_logits", W.Renormalize())

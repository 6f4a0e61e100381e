"""Options → the processors of one prompt, in transformers' order, since order changes results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from . import processors as P
from . import warpers as W
from .interface import LogitsProcessor
from .options import Options

Array = np.ndarray


class Named(NamedTuple):
    """A processor and the option that asked for it."""

    option: str
    processor: LogitsProcessor


def build(options: Options, prompt: int, prompt_length: int, max_length: int, taken: Sequence[int] = ()) -> list[Named]:
    """What the scores of prompt number `prompt` go through at each step.

    The order is `GenerationMixin._get_logits_processor`'s; the warpers act only when sampling. `max_length` counts
    the prompt. `taken` is a list that diverse beam search keeps: what earlier groups chose in the step under way.
    """
    return [*rules(options, prompt, prompt_length, max_length, taken), *warping(options)]


def rules(
    options: Options, prompt: int, prompt_length: int, max_length: int, taken: Sequence[int] = ()
) -> Iterator[Named]:
    """What depends on the text so far."""
    o, eos = options, options.eos_token_ids
    if o.sequence_bias is not None:
        pairs = o.sequence_bias.items() if hasattr(o.sequence_bias, "items") else o.sequence_bias
        yield Named("sequence_bias", P.SequenceBias({tuple(sequence): value for sequence, value in pairs}))
    if o.logit_bias:
        yield Named("logit_bias", P.SequenceBias({(token,): value for token, value in o.logit_bias.items()}))
    if o.diversity_penalty is not None:
        yield Named("diversity_penalty", P.HammingDiversity(o.diversity_penalty, taken))
    if o.repetition_penalty is not None and o.repetition_penalty != 1:
        yield Named("repetition_penalty", P.RepetitionPenalty(o.repetition_penalty))
    if o.presence_penalty:
        yield Named("presence_penalty", P.OccurrencePenalty(prompt_length, presence=o.presence_penalty))
    if o.frequency_penalty:
        yield Named("frequency_penalty", P.OccurrencePenalty(prompt_length, frequency=o.frequency_penalty))
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


def warping(options: Options) -> Iterator[Named]:
    """What reshapes or truncates the distribution before a draw."""
    o = options
    if o.do_sample:
        keep = 1 if o.num_beams == 1 else max(2, len(o.eos_token_ids) + 1)
        if o.temperature is not None and o.temperature != 1:
            yield Named("temperature", W.Temperature(o.temperature))
        if o.top_h is not None:
            yield Named("top_h", W.TopH(o.top_h))
        if o.top_k is not None:
            yield Named("top_k", W.TopK(o.top_k, keep))
        if o.top_p is not None and o.top_p < 1:
            yield Named("top_p", W.TopP(o.top_p, keep))
        if o.min_p is not None:
            yield Named("min_p", W.MinP(o.min_p, keep))
        if o.typical_p is not None and o.typical_p < 1:
            yield Named("typical_p", W.Typical(o.typical_p, keep))
        if o.epsilon_cutoff is not None:
            yield Named("epsilon_cutoff", W.EpsilonCutoff(o.epsilon_cutoff, keep))
        if o.eta_cutoff is not None:
            yield Named("eta_cutoff", W.EtaCutoff(o.eta_cutoff, keep))
    if o.renormalize_logits:
        yield Named("renormalize_logits", W.Renormalize())


def apply(chain: Sequence[Named], ids: Sequence[Array], scores: Array) -> Array:
    """Scores after every processor in turn; ``ValueError`` names the option that left nothing to choose from."""
    for option, processor in chain:
        scores = processor(ids, scores)
        if not (scores > -np.inf).any(axis=-1).all():
            raise ValueError(f"no token is left to choose from after {option}: {processor}")
    return scores

"""Options → the processors of one prompt, in transformers' order, since order changes results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from . import processors as P
from . import warpers as W
from .interface import LogitsProcessor
from .options import Options

Array = np.ndarray


def build(options: Options, prompt: int, prompt_length: int, max_length: int) -> list[LogitsProcessor]:
    """What the scores of prompt number `prompt` go through at each step.

    The order is `GenerationMixin._get_logits_processor`'s; the warpers act only when sampling. `max_length` counts
    the prompt.
    """
    return [*rules(options, prompt, prompt_length, max_length), *warping(options)]


def rules(options: Options, prompt: int, prompt_length: int, max_length: int) -> Iterator[LogitsProcessor]:
    """What depends on the text so far."""
    o, eos = options, options.eos_token_ids
    if o.sequence_bias is not None:
        pairs = o.sequence_bias.items() if hasattr(o.sequence_bias, "items") else o.sequence_bias
        yield P.SequenceBias({tuple(sequence): value for sequence, value in pairs})
    if o.logit_bias:
        yield P.SequenceBias({(token,): value for token, value in o.logit_bias.items()})
    if o.repetition_penalty is not None and o.repetition_penalty != 1:
        yield P.RepetitionPenalty(o.repetition_penalty)
    if o.presence_penalty or o.frequency_penalty:
        yield P.OccurrencePenalty(prompt_length, o.presence_penalty or 0.0, o.frequency_penalty or 0.0)
    if o.no_repeat_ngram_size:
        yield P.NoRepeatNgram(o.no_repeat_ngram_size)
    if o.bad_words_ids is not None:
        yield P.bad_words(o.bad_words_ids, eos)
    if o.min_length and eos:
        yield P.MinLength(o.min_length, eos)
    if o.min_new_tokens and eos:
        yield P.MinLength(prompt_length + o.min_new_tokens, eos)
    if o.prefix_allowed_tokens_fn is not None:
        yield P.PrefixAllowedTokens(o.prefix_allowed_tokens_fn, prompt)
    if o.forced_bos_token_id is not None:
        yield P.ForcedBOS(o.forced_bos_token_id)
    if o.forced_eos_token_id is not None:
        forced = o.forced_eos_token_id
        yield P.ForcedEOS(max_length, (forced,) if isinstance(forced, int) else tuple(forced))
    if o.remove_invalid_values:
        yield P.RemoveInvalid()
    if o.exponential_decay_length_penalty is not None and eos:
        start, factor = o.exponential_decay_length_penalty
        yield P.ExponentialDecayLengthPenalty(start + prompt_length, factor, eos)
    if o.suppress_tokens is not None:
        yield P.Suppress(tuple(o.suppress_tokens))
    if o.begin_suppress_tokens is not None:
        later = prompt_length == 1 and o.forced_bos_token_id is not None
        yield P.SuppressAtBegin(tuple(o.begin_suppress_tokens), prompt_length + later)


def warping(options: Options) -> Iterator[LogitsProcessor]:
    """What reshapes or truncates the distribution before a draw."""
    o = options
    if o.do_sample:
        keep = 1 if o.num_beams == 1 else max(2, len(o.eos_token_ids) + 1)
        if o.temperature is not None and o.temperature != 1:
            yield W.Temperature(o.temperature)
        if o.top_h is not None:
            yield W.TopH(o.top_h)
        if o.top_k is not None:
            yield W.TopK(o.top_k, keep)
        if o.top_p is not None and o.top_p < 1:
            yield W.TopP(o.top_p, keep)
        if o.min_p is not None:
            yield W.MinP(o.min_p, keep)
        if o.typical_p is not None and o.typical_p < 1:
            yield W.Typical(o.typical_p, keep)
        if o.epsilon_cutoff is not None:
            yield W.EpsilonCutoff(o.epsilon_cutoff, keep)
        if o.eta_cutoff is not None:
            yield W.EtaCutoff(o.eta_cutoff, keep)
    if o.renormalize_logits:
        yield W.Renormalize()


def apply(processors: Sequence[LogitsProcessor], ids: Sequence[Array], scores: Array) -> Array:
    """Scores after every processor in turn; ``ValueError`` names the one that left nothing to choose from."""
    for processor in processors:
        scores = processor(ids, scores)
        if not (scores > -np.inf).any(axis=-1).all():
            raise ValueError(f"no token is left to choose from after {processor}")
    return scores
